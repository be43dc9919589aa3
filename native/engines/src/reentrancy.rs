//! Lends the guest that calls its host to what Python does meanwhile.
//!
//! Python reaches a guest through an object that outlives the call, and the borrow checker
//! cannot follow the guest there. So a function of the host leaves a pointer here for its
//! duration.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::guest::Guest;

type Place = *mut (dyn Guest + 'static);

thread_local! {
    /// The calls into the host on this thread's stack, innermost last; none while it is in use.
    static LENT: RefCell<Vec<(u64, Option<Place>)>> = const { RefCell::new(Vec::new()) };
}

/// A number for a new instance.
pub fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Do what may want the guest `number`, and lend it meanwhile.
pub fn during<T>(number: u64, guest: &mut dyn Guest, work: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            LENT.with_borrow_mut(Vec::pop);
        }
    }
    let place = std::ptr::from_mut(guest);
    // SAFETY: only the lifetime changes, of a pointer that `Back` takes away before it ends.
    let place = unsafe { std::mem::transmute::<*mut (dyn Guest + '_), Place>(place) };
    LENT.with_borrow_mut(|lent| lent.push((number, Some(place))));
    let _back = Back;
    work()
}

/// Use the guest `number`, if a call of it is waiting for this thread; else None.
pub fn with<T>(number: u64, use_it: impl FnOnce(&mut dyn Guest) -> T) -> Option<T> {
    struct Back(usize, Place);
    impl Drop for Back {
        fn drop(&mut self) {
            LENT.with_borrow_mut(|lent| lent[self.0].1 = Some(self.1));
        }
    }
    let back = LENT.with_borrow_mut(|lent| {
        let at = lent.iter().rposition(|(whose, place)| *whose == number && place.is_some())?;
        Some(Back(at, lent[at].1.take()?))
    })?;
    // SAFETY: `during` put the pointer here on this thread and takes it away before it returns,
    // so the guest lives, and waits: `during` does not touch it. While the pointer is used here
    // it is not in the list, so there is no second reference; what is called from here and lends
    // again, does so with another one. The closure is generic over the lifetime, so it cannot let
    // the reference escape.
    Some(use_it(unsafe { &mut *back.1 }))
}
