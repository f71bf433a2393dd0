//! One PBKDF2 per tenant: the keys of a password are derived once per salt and iteration count.
//!
//! Owns the cache. The salt changes only when the role's password does, so one entry is enough; a second one replaces
//! it. Concurrent logins wait for the one derivation. Must not run PBKDF2 on the calling thread.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use crate::auth::scram_client::SaltedKeys;
use crate::tenant::Secret;

/// The keys of one password.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    newest: Mutex<Option<Entry>>,
    derived: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    salt: Box<[u8]>,
    iterations: NonZeroU32,
    keys: Arc<OnceCell<Arc<SaltedKeys>>>,
}

impl KeyCache {
    /// The keys for a challenge, derived unless they are known. `None` if the derivation could not be run because the
    /// runtime is shutting down. Cancel-safe; a derivation given up by its first waiter is begun again by the next.
    pub(super) async fn keys(
        &self,
        brake: &Semaphore,
        password: &Secret,
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Option<Arc<SaltedKeys>> {
        let cell = self.cell(salt, iterations);
        let derive = || async {
            let _turn = brake.acquire().await.ok()?;
            self.derived.fetch_add(1, Ordering::Relaxed);
            let (password, salt) = (password.clone(), salt.to_vec());
            let derive = move || SaltedKeys::derive(password.expose(), &salt, iterations);
            tokio::task::spawn_blocking(derive).await.ok().map(Arc::new)
        };
        cell.get_or_try_init(|| async { derive().await.ok_or(()) }).await.ok().cloned()
    }

    /// Derivations so far.
    pub(super) fn derived(&self) -> u64 {
        self.derived.load(Ordering::Relaxed)
    }

    fn cell(&self, salt: &[u8], iterations: NonZeroU32) -> Arc<OnceCell<Arc<SaltedKeys>>> {
        let mut newest = self.newest.lock();
        match &*newest {
            Some(entry) if *entry.salt == *salt && entry.iterations == iterations => entry.keys.clone(),
            Some(_) | None => {
                let keys = Arc::<OnceCell<_>>::default();
                *newest = Some(Entry { salt: salt.into(), iterations, keys: keys.clone() });
                keys
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_logins_wait_for_one_derivation() {
        let cache = Arc::new(KeyCache::default());
        let brake = Arc::new(Semaphore::new(2));
        let password = Secret::new("pencil".into());
        let count = NonZeroU32::new(4096).unwrap();
        let logins: Vec<_> = (0..50)
            .map(|_| {
                let (cache, brake, password) = (cache.clone(), brake.clone(), password.clone());
                tokio::spawn(async move { cache.keys(&brake, &password, b"salt", count).await.is_some() })
            })
            .collect();
        for login in logins {
            assert!(login.await.unwrap());
        }
        assert_eq!(cache.derived(), 1);
        cache.keys(&brake, &password, b"other salt", count).await.unwrap();
        assert_eq!(cache.derived(), 2, "a new password has a new salt");
        cache.keys(&brake, &password, b"other salt", NonZeroU32::new(4095).unwrap()).await.unwrap();
        assert_eq!(cache.derived(), 3);
    }

    #[tokio::test]
    async fn a_derivation_that_was_given_up_is_begun_again() {
        let cache = KeyCache::default();
        let brake = Semaphore::new(0);
        let password = Secret::new("pencil".into());
        let given_up = tokio::time::timeout(
            std::time::Duration::from_millis(5),
            cache.keys(&brake, &password, b"salt", NonZeroU32::MIN),
        );
        assert!(given_up.await.is_err());
        brake.add_permits(1);
        assert!(cache.keys(&brake, &password, b"salt", NonZeroU32::MIN).await.is_some());
    }
}
