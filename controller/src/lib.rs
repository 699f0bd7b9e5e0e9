pub mod grpc;
pub mod identity;
