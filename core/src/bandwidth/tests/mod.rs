mod faults;
mod liars;
mod network;
mod waves;
