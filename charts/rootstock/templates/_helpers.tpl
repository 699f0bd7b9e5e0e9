{{/* One controller looks after a cluster, so its names are fixed. */}}
{{- define "rootstock.name" -}}rootstock-controller{{- end }}

{{/* The controller tells agents of a plain cluster the second name. */}}
{{- define "rootstock.service" -}}
{{- ternary (include "rootstock.name" .) "rs-local" (eq (include "rootstock.in-seed" .) "true") }}
{{- end }}

{{/* Whether agents come in through Istio. */}}
{{- define "rootstock.by-istio" -}}
{{- if and (include "rootstock.in-seed" .) (eq .Values.endpoint.ingress "istio") }}true{{ end }}
{{- end }}

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
{{- if and (hasPrefix "shoot-" .Release.Namespace) (not (include "rootstock.in-seed" .)) }}
{{- fail (printf "the namespace %q begins as those of shoots do: choose another for `cluster: local`" .Release.Namespace) }}
{{- end }}
{{- if eq (int .Values.ports.agents) (int .Values.ports.admin) }}
{{- fail (printf "ports.agents and ports.admin are both %d: they must differ" (int .Values.ports.agents)) }}
{{- end }}
{{- $registries := dict }}
{{- range .Values.config.registries }}
{{- if hasKey $registries .name }}
{{- fail (printf "config.registries: %q is there twice" .name) }}
{{- end }}
{{- $_ := set $registries .name true }}
{{- end }}
{{- $types := dict }}
{{- range .Values.config.runtimes }}
{{- if hasKey $types .type }}
{{- fail (printf "config.runtimes: type %q is there twice" .type) }}
{{- end }}
{{- $_ := set $types .type true }}
{{- $registry := first (splitList "/" .bundle) }}
{{- if not (hasKey $registries $registry) }}
{{- fail (printf "config.runtimes: the bundle of %q names the registry %q, which is not in config.registries" .type $registry) }}
{{- end }}
{{- end }}
{{- end }}
