//! `Enrollment`: certificates for nodes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rootstock_daemon::error::Chain;
use rootstock_proto::v1;
use rootstock_proto::v1::enrollment_server::Enrollment;
use tonic::{Request, Response, Status};

use super::listener::Link;
use super::{Directory, ShootEndpoint};
use crate::identity::ca::{Issued, SignError};
use crate::identity::enrol::{EnrolError, Enrolled, Enroller};
use crate::identity::peer::Peer;

pub(super) struct EnrollmentService<D> {
    directory: Arc<D>,
    enroller: Enroller,
}

impl<D: Directory> EnrollmentService<D> {
    pub(super) fn new(directory: Arc<D>) -> Self {
        Self { directory, enroller: Enroller::new() }
    }
}

#[tonic::async_trait]
impl<D: Directory> Enrollment for EnrollmentService<D> {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Result<Response<v1::EnrollResponse>, Status> {
        let shoot = Link::of(&request)?.endpoint(self.directory.as_ref())?;
        let v1::EnrollRequest { token, certificate_request } = request.into_inner();
        let now = Timestamp::now();
        let enrolled = self.enroller.enrol(
            shoot.authorities.signer(),
            &shoot.client,
            &token,
            &certificate_request,
            now,
        );
        let Enrolled { node, pod, issued } =
            enrolled.await.map_err(|error| refuse(&shoot, &error))?;
        // Before it can come with its certificate.
        self.directory.vouch(&node, &pod);
        tracing::info!(%node, not_after = %issued.not_after, "node enrolled");
        let certificate = Some(certificate(&shoot, &issued, now));
        Ok(Response::new(v1::EnrollResponse { certificate }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let now = Timestamp::now();
        let link = Link::of(&request)?;
        let (Peer { node, .. }, _) = link.node(now)?;
        let shoot = link.endpoint(self.directory.as_ref())?;
        if self.directory.lacks_agent(&node) {
            return Err(refuse(&shoot, &EnrolError::AgentGone { node: node.name }));
        }
        let request = request.into_inner().certificate_request;
        let signer = shoot.authorities.signer();
        let renewed = self.enroller.renew(signer, &shoot.client, &node, &request, now);
        let issued = renewed.await.map_err(|error| refuse(&shoot, &error))?;
        tracing::info!(%node, not_after = %issued.not_after, "certificate renewed");
        let certificate = Some(certificate(&shoot, &issued, now));
        Ok(Response::new(v1::RenewResponse { certificate }))
    }
}

fn certificate(shoot: &ShootEndpoint, issued: &Issued, now: Timestamp) -> v1::Certificate {
    let life = Duration::try_from(issued.not_after.duration_since(now)).unwrap_or_default();
    let renew_after = now.checked_add(life * 7 / 10).unwrap_or(issued.not_after);
    v1::Certificate {
        leaf: issued.certificate.to_vec(),
        // All of them: while they rotate, the endpoint's is another one's.
        authorities: shoot.authorities.certificates().map(|der| der.to_vec()).collect(),
        not_after: Some(SystemTime::from(issued.not_after).into()),
        renew_after: Some(SystemTime::from(renew_after).into()),
    }
}

/// What the caller is told, and what the log keeps. An error of the shoot's
/// API names addresses, which are for the log only.
fn refuse(shoot: &ShootEndpoint, error: &EnrolError) -> Status {
    let status = status(error);
    tracing::info!(shoot = %shoot.name, code = ?status.code(), error = %Chain(error), "no certificate given");
    status
}

fn status(error: &EnrolError) -> Status {
    let text = error.to_string();
    match error {
        EnrolError::RateLimited => Status::resource_exhausted(text),
        EnrolError::Token(_) | EnrolError::TokenRefused | EnrolError::TokenAudience => {
            Status::unauthenticated(text)
        }
        EnrolError::NotAgent { .. }
        | EnrolError::Unbound { .. }
        | EnrolError::PodGone { .. }
        | EnrolError::PodTerminating { .. }
        | EnrolError::PodElsewhere { .. }
        | EnrolError::PodForeign { .. }
        | EnrolError::AgentGone { .. }
        | EnrolError::NodeGone { .. }
        | EnrolError::NodeReplaced { .. } => Status::permission_denied(text),
        EnrolError::ApiForbidden { .. }
        | EnrolError::ApiFailed { .. }
        | EnrolError::ApiSilent { .. } => Status::unavailable(text),
        EnrolError::Request(refused) => match refused {
            SignError::TooLarge
            | SignError::Unreadable
            | SignError::SignatureInvalid
            | SignError::KeyRefused => Status::invalid_argument(text),
            SignError::WrongShoot => Status::permission_denied(text),
            // The operator has to see to it; agents come back.
            SignError::CaExpired | SignError::Ca(_) => Status::unavailable(text),
        },
    }
}
