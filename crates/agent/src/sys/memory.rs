//! Settings of the C library's allocator.

/// One arena: the agent has one busy thread, and every arena keeps memory of its own.
pub(crate) fn tune_memory() {
    // SAFETY: mallopt takes two integers; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel.
pub(crate) fn trim_memory() {
    // SAFETY: malloc_trim may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
