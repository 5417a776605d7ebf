//! What users do, each a test: real pods that would notice a lost write, real volumes, the real program.

mod ancestor;
mod clone;
mod crashes;
mod evidence;
mod examples;
mod faults;
mod guards;
mod hand_over;
mod in_cluster;
mod kept;
mod leases;
mod moves;
mod options;
mod originals;
mod refusals;
mod refusals_managers;
mod refusals_server;
mod refusals_volumes;
mod refused;
mod relabel;
mod rights;
mod rollback;
mod shop;
mod ways_back;
