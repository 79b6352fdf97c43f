//! Several nodes in one process, over one memory engine, in time that tokio turns: the same run every time.

mod campaign;
mod fenced;
mod life;
mod silence;
mod unknown;
mod world;
