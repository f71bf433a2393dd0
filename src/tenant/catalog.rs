//! All tenants: an immutable snapshot with a version.
//!
//! Owns the look-up by id and by name, and the rule that a name keeps its [`TenantId`] across reloads. Must not know
//! where tenants come from.

use std::collections::HashMap;
use std::sync::Arc;

use super::{AuthFace, Tenant};
use crate::ids::TenantId;

/// An immutable set of tenants.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    version: u64,
    next_id: u32,
    tenants: HashMap<TenantId, Arc<Tenant>>,
    ids: HashMap<Arc<str>, TenantId>,
    usual_face: AuthFace,
}

/// Why a catalog could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Two tenants have one name.
    #[error("tenant `{0}` is defined twice")]
    Duplicate(Arc<str>),
    /// More tenants than numbers.
    #[error("too many tenants")]
    TooMany,
}

impl Catalog {
    /// The next snapshot: tenants keep the id their name had in `self`, new names get new numbers, and a number
    /// once used for another name is never used again. The `id` in the given tenants is ignored.
    ///
    /// # Errors
    /// If two tenants share a name, or the numbers run out.
    pub fn next(&self, tenants: Vec<Tenant>) -> Result<Self, CatalogError> {
        let mut next =
            Self { version: self.version.saturating_add(1), next_id: self.next_id, ..Self::default() };
        for mut tenant in tenants {
            tenant.id = match self.ids.get(&tenant.name) {
                Some(id) => *id,
                None => {
                    let id = TenantId(next.next_id);
                    next.next_id = next.next_id.checked_add(1).ok_or(CatalogError::TooMany)?;
                    id
                }
            };
            if next.ids.insert(tenant.name.clone(), tenant.id).is_some() {
                return Err(CatalogError::Duplicate(tenant.name));
            }
            next.tenants.insert(tenant.id, Arc::new(tenant));
        }
        next.usual_face = usual_face(next.iter());
        Ok(next)
    }

    /// Rises by one with each snapshot.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// How many tenants there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// The tenant of that number.
    #[must_use]
    pub fn get(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id)
    }

    /// The tenant of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.ids.get(name).and_then(|id| self.tenants.get(id))
    }

    /// What most users are asked for; so whoever does not exist is asked for it, too.
    #[must_use]
    pub const fn usual_face(&self) -> AuthFace {
        self.usual_face
    }

    /// All tenants, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }
}

/// The commonest face; of equally common ones the first in the order of [`AuthFace::ALL`].
fn usual_face<'a>(tenants: impl Iterator<Item = &'a Arc<Tenant>>) -> AuthFace {
    let mut counts = AuthFace::ALL.map(|face| (face, 0_usize));
    for user in tenants.flat_map(|tenant| &tenant.users) {
        let face = user.auth.face();
        counts
            .iter_mut()
            .filter(|(known, _)| *known == face)
            .for_each(|(_, count)| *count = count.saturating_add(1));
    }
    let mut usual = (AuthFace::default(), 0);
    for (face, count) in counts {
        if count > usual.1 {
            usual = (face, count);
        }
    }
    usual.0
}
