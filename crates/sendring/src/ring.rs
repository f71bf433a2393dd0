//! The kernel's ring: submissions in, results out, nothing left behind.
//!
//! Owns all there is of io_uring. Every call submits what it is given and comes back when all of it has been carried out, so
//! sockets and bytes are borrowed for the call only.

#[cfg(target_os = "linux")]
pub(crate) use linux::Ring;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Ring;

/// What became of one send: bytes taken, or the system's error number with a minus sign.
pub(crate) type Outcome = Option<i32>;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    use io_uring::{IoUring, Probe, opcode, types};
    use rustix::net::SendFlags;

    use super::Outcome;

    /// A ring of this thread.
    pub(crate) struct Ring(IoUring);

    impl Ring {
        /// A ring for this many sends at a time.
        ///
        /// # Errors
        /// If the kernel is older than 6.1, or whoever runs the process does not allow io_uring.
        pub(crate) fn new(entries: u32) -> io::Result<Self> {
            let ring = IoUring::builder()
                .setup_single_issuer()
                .setup_coop_taskrun()
                .setup_defer_taskrun()
                .build(entries)?;
            let mut probe = Probe::new();
            ring.submitter().register_probe(&mut probe)?;
            if !probe.is_supported(opcode::Send::CODE) {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Ok(Self(ring))
        }

        /// Carries out the sends, in their order, and says what became of each: `None` if the kernel was not told of it.
        ///
        /// # Errors
        /// If the ring cannot be used any more. What has an outcome has been carried out nevertheless.
        pub(crate) fn send<'a>(
            &mut self,
            sends: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
            outcomes: &mut Vec<Outcome>,
        ) -> io::Result<()> {
            outcomes.clear();
            let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits().cast_signed();
            for (number, (socket, bytes)) in sends.enumerate() {
                let Ok(length) = u32::try_from(bytes.len()) else { break };
                let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length)
                    .flags(flags)
                    .build()
                    .user_data(number as u64);
                // SAFETY: socket and bytes are borrowed until this function returns, and it does not return, and drops
                // the ring if it fails, before every entry that the kernel took has completed.
                if unsafe { self.0.submission().push(&send) }.is_err() {
                    break;
                }
                outcomes.push(None);
            }
            let mut submitted = 0;
            let mut completed = 0;
            let end = loop {
                let wanted = outcomes.len() - completed;
                let result = self.0.submit_and_wait(wanted);
                submitted += *result.as_ref().unwrap_or(&0);
                for completion in self.0.completion() {
                    let slot =
                        usize::try_from(completion.user_data()).ok().and_then(|at| outcomes.get_mut(at));
                    if let Some(slot) = slot {
                        *slot = Some(completion.result());
                    }
                    completed += 1;
                }
                match result {
                    Ok(_) if completed == outcomes.len() => break Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                }
            };
            // Sends that may not wait have completed when they are submitted. If ever one had not, the kernel would go on
            // reading bytes that are somebody else's by then.
            if completed < submitted {
                std::process::abort();
            }
            end
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::io;
    use std::os::fd::BorrowedFd;

    use super::Outcome;

    /// There is none here.
    pub(crate) enum Ring {}

    impl Ring {
        /// # Errors
        /// Always.
        pub(crate) fn new(_: u32) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// Cannot be called: nobody has a ring.
        pub(crate) fn send<'a>(
            &mut self,
            _: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
            _: &mut Vec<Outcome>,
        ) -> io::Result<()> {
            match *self {}
        }
    }
}
