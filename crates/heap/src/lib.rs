//! The process's allocator, and how it is told to give memory back.
//!
//! mimalloc keeps what has been freed for whoever asks next, and returns it to the system when it comes by there again.
//! Behind a configuration of a hundred thousand tenants, or a storm of logins, nothing comes by. [`give_back`] is for
//! those moments. This crate may say `unsafe`, for that one call into C.

/// What the binary allocates by.
#[cfg(feature = "mimalloc")]
pub use mimalloc::MiMalloc as Allocator;
/// What the binary allocates by.
#[cfg(not(feature = "mimalloc"))]
pub use std::alloc::System as Allocator;

/// Returns to the system what this thread has freed. Takes about a millisecond for each hundred megabytes of it, so it is
/// for the end of something large. Does nothing with the system's own allocator.
pub fn give_back() {
    #[cfg(feature = "mimalloc")]
    // SAFETY: it has no preconditions: it looks at this thread's own heap, and at what threads that have ended left behind.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
