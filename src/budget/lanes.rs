//! Tenants that want another server, in the order in which they are served.
//!
//! Owns one heap per lane. Lanes 0 and 1 are the bands below the floor and below the share; lanes 2 to 4 are the burst
//! band, split by how long its borrowers hold a server, so that long ones that have to wait do not stand in the way of
//! short ones. Inside a lane the least virtual time is first, then the smaller tenant id. Must not know why a tenant
//! wants.

use super::heap::Heap;
use super::tenants::Band;
use crate::ids::TenantId;

/// Wanting tenants by lane.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    heaps: [Heap<Key>; LANES as usize],
    /// Tenants in all lanes: in most steps there is none, and each step asks.
    tenants: usize,
}

/// The order inside a lane: virtual time, then id.
pub(super) type Key = (u64, TenantId);

impl Lanes {
    pub(super) fn new() -> Self {
        Self { heaps: std::array::from_fn(|_| Heap::new()), tenants: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.tenants == 0
    }

    pub(super) fn len(&self, lane: u8) -> usize {
        self.heaps.get(usize::from(lane)).map_or(0, Heap::len)
    }

    pub(super) fn set(&mut self, lane: u8, tenant: u32, key: Key) {
        self.change(lane, |heap| heap.set(tenant, key));
    }

    pub(super) fn remove(&mut self, lane: u8, tenant: u32) {
        self.change(lane, |heap| heap.remove(tenant));
    }

    /// The first tenant of a lane, apart from one.
    pub(super) fn first(&self, lane: u8, except: Option<u32>) -> Option<(Key, u32)> {
        let heap = self.heaps.get(usize::from(lane))?;
        match except {
            Some(except) => heap.first_except(except),
            None => heap.first(),
        }
    }

    pub(super) fn key(&self, lane: u8, tenant: u32) -> Option<Key> {
        self.heaps.get(usize::from(lane)).and_then(|heap| heap.key(tenant))
    }

    fn change(&mut self, lane: u8, change: impl FnOnce(&mut Heap<Key>)) {
        if let Some(heap) = self.heaps.get_mut(usize::from(lane)) {
            let others = self.tenants.saturating_sub(heap.len());
            change(heap);
            self.tenants = others.saturating_add(heap.len());
        }
    }
}

/// The lane of a band, for borrowers of that class of holds.
pub(super) const fn lane(band: Band, class: u8) -> u8 {
    match band {
        Band::Floor => 0,
        Band::Share => 1,
        Band::Burst => 2_u8.saturating_add(class),
    }
}

/// The band of a lane.
pub(super) const fn band(lane: u8) -> Band {
    match lane {
        0 => Band::Floor,
        1 => Band::Share,
        _ => Band::Burst,
    }
}

/// How many lanes there are.
pub(super) const LANES: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_a_lane_the_least_served_comes_first_and_then_the_smaller_id() {
        let mut lanes = Lanes::new();
        lanes.set(1, 7, (20, TenantId(1)));
        lanes.set(1, 8, (10, TenantId(3)));
        lanes.set(1, 9, (10, TenantId(2)));
        assert_eq!(lanes.first(1, None), Some(((10, TenantId(2)), 9)));
        assert_eq!(lanes.first(1, Some(9)), Some(((10, TenantId(3)), 8)));
        lanes.set(1, 9, (30, TenantId(2)));
        lanes.remove(1, 8);
        assert_eq!(lanes.first(1, None), Some(((20, TenantId(1)), 7)));
        assert_eq!((lanes.len(1), lanes.len(0), lanes.is_empty()), (2, 0, false));
    }

    #[test]
    fn the_burst_band_has_a_lane_for_each_class_of_holds() {
        let all = [lane(Band::Floor, 2), lane(Band::Share, 2), lane(Band::Burst, 0), lane(Band::Burst, 2)];
        assert_eq!(all, [0, 1, 2, LANES - 1]);
        assert_eq!(all.map(band), [Band::Floor, Band::Share, Band::Burst, Band::Burst]);
    }
}
