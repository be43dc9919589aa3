//! Lends the guest that calls its host to what Python does meanwhile.
//!
//! Python reaches a guest through an object that outlives the call, and the borrow checker
//! cannot follow it there. So a function of the host leaves a pointer here for its duration.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::guest::Caller;
use crate::python::Functions;

type Place = *mut Caller<'static, Functions>;

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
pub fn during<T>(number: u64, caller: &mut Caller<'_, Functions>, work: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            LENT.with_borrow_mut(Vec::pop);
        }
    }
    let place = std::ptr::from_mut(caller).cast();
    LENT.with_borrow_mut(|lent| lent.push((number, Some(place))));
    let _back = Back;
    work()
}

/// Use the guest `number`, if a call of it is waiting for this thread; else None.
pub fn with<T>(number: u64, use_it: impl FnOnce(&mut Caller<'_, Functions>) -> T) -> Option<T> {
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
    // so what it points to lives, and waits: `during` does not touch it. While it is used here
    // it is not in the list, so there is no second reference to it; what is called from here
    // and lends again, does so with another one. `use_it` cannot keep it: its lifetime is any.
    Some(use_it(unsafe { &mut *back.1 }))
}
