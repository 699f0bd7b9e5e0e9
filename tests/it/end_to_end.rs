//! Whole worlds: the real controller and real agents as processes of their own.
//!
//! * [`journey`]: ContainerRuntimes reach their nodes, and leave them again
//! * [`crashes`]: kill -9 at a few points ends in the same state
//! * [`bad_input`]: each says what is wrong with whom, and the rest goes on
//! * [`settings`]: what a user writes into providerConfig reaches the node
//! * [`operator`]: what `rootstock` asks for is carried out
//! * [`command`]: `rootstock-playground up` as a person or a script calls it

mod bad_input;
mod command;
mod crashes;
mod fixture;
mod journey;
mod operator;
mod settings;
