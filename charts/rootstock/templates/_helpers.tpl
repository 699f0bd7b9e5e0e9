{{/* One controller looks after a cluster, so its names are fixed. */}}
{{- define "rootstock.name" -}}rootstock-controller{{- end }}

{{- define "rootstock.selector" -}}
app.kubernetes.io/name: rootstock
app.kubernetes.io/component: controller
{{- end }}

{{- define "rootstock.labels" -}}
{{ include "rootstock.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* An image with its tag: dict "image" … "root" $ */}}
{{- define "rootstock.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "rootstock.in-seed" -}}
{{- if eq .Values.cluster "seed" }}true{{ end }}
{{- end }}

{{/* What the values' schema can't see: two values that contradict each other. */}}
{{- define "rootstock.check" -}}
{{- if and .Values.gardener (not (include "rootstock.in-seed" .)) }}
{{- fail "cluster: local is for clusters without Gardener, and Gardener installs this release: leave `cluster` at seed" }}
{{- end }}
{{- if eq (int .Values.ports.agents) (int .Values.ports.admin) }}
{{- fail (printf "ports.agents and ports.admin are both %d: they must differ" (int .Values.ports.agents)) }}
{{- end }}
{{- end }}
