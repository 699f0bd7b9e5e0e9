mod faults;
mod network;
mod waves;
