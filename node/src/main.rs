//! The program `rookery`.

// A quarter of the time of a message went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    rookery_node::program::main()
}
