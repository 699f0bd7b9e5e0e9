pub mod identity;

