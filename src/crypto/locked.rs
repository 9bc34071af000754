//! Memory for key material: pages of its own, kept out of swap and of core dumps where the system allows it, wiped
//! and given back when dropped. Beside `program::child` the one module with `unsafe`.
//!
//! Pages of its own, because locks do not nest: unlocking one secret would unlock its neighbours on the page. What
//! passes through on the way here (registers, the stack, the buffer a key was read into) is not covered; see
//! [`with_clean_stack`].
#![expect(unsafe_code, reason = "mmap and mlock; the rest of the crate denies it")]

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// One value in a private mapping. Moving it moves a pointer.
pub(super) struct Locked<T> {
    place: NonNull<T>,
}

// SAFETY: the mapping belongs to this value alone, as a box's allocation does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above; a shared reference gives out shared references only.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> ZeroizeOnDrop for Locked<T> {}

impl<T> Locked<T> {
    /// Bytes mapped; the system rounds them up to whole pages, which begin as zeros.
    const LEN: usize = {
        assert!(size_of::<T>() > 0, "nothing to keep");
        assert!(align_of::<T>() <= 4096, "pages are aligned to 4096 bytes at least");
        size_of::<T>()
    };

    /// Moves a value there. That it is locked is best effort: RLIMIT_MEMLOCK may be small, a sandbox may forbid it.
    ///
    /// # Panics
    /// Where no memory is left, as any allocation does.
    pub(super) fn new(value: T) -> Self {
        let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping at an address of the system's choice touches no memory of anybody.
        let pages = unsafe { mmap_anonymous(std::ptr::null_mut(), Self::LEN, access, kind) };
        let pages = pages.expect("the system has a page of memory left");
        // SAFETY: both only change how the system treats the mapping that was just made, of this length.
        unsafe {
            let _ = mlock(pages, Self::LEN);
            let _ = madvise(pages, Self::LEN, Advice::LinuxDontDump);
        }
        let place = NonNull::new(pages.cast::<T>()).expect("a mapping is never at address zero");
        // SAFETY: writable, of T's size, page-aligned, and not shared.
        unsafe { place.write(value) };
        Locked { place }
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` wrote a T there, and only `drop` takes it away.
        unsafe { self.place.as_ref() }
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; `&mut self` excludes other references.
        unsafe { self.place.as_mut() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        let bytes = self.place.cast::<u8>();
        // SAFETY: the T is dropped once, here; afterwards its bytes are wiped as bytes and the mapping, which nothing
        // refers to any more, is given back.
        unsafe {
            self.place.drop_in_place();
            std::slice::from_raw_parts_mut(bytes.as_ptr(), Self::LEN).zeroize();
            let _ = munmap(bytes.as_ptr().cast(), Self::LEN);
        }
    }
}

/// Does `work` and then overwrites the stack below this point: AES keeps its round keys there while it runs, the first
/// two of which are the key, and leaves them behind.
///
/// Best effort: the compiler may keep a copy elsewhere. That none is found in a live process is what
/// `tests/engine/memory.rs` shows.
#[inline(never)]
pub(super) fn with_clean_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    overwrite();
    done
}

#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// A cache line's worth of zeros, written at once.
type Line = [u64; 8];

/// More than the frames of AES-GCM, of its key schedule and of HMAC take: 8 KiB, and 64 KiB where nothing is optimized.
const LINES: usize = if cfg!(debug_assertions) { 1024 } else { 128 };

/// Written without being filled first: this is done for every row.
#[inline(never)]
fn overwrite() {
    let mut stack = MaybeUninit::<[Line; LINES]>::uninit();
    let lines = stack.as_mut_ptr().cast::<Line>();
    for at in 0..LINES {
        // SAFETY: within the array, aligned as its elements are; nothing is read. Volatile, so that it is really done.
        unsafe { lines.add(at).write_volatile([0; 8]) };
    }
    std::hint::black_box(&stack);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_value_is_kept_changed_and_dropped_once() {
        static DROPS: AtomicU32 = AtomicU32::new(0);
        struct Counted([u8; 5000]);
        impl Drop for Counted {
            fn drop(&mut self) {
                DROPS.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut locked = Locked::new(Counted([7; 5000]));
        locked.0[4999] = 8;
        let address = std::ptr::from_ref(&locked.0);
        let moved = std::thread::spawn(move || locked).join().unwrap();
        assert_eq!(std::ptr::from_ref(&moved.0), address, "moving copies nothing");
        assert_eq!((moved.0[0], moved.0[4999]), (7, 8));
        assert_eq!(DROPS.load(Ordering::Relaxed), 0);
        drop(moved);
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn its_pages_are_its_own() {
        let pair = [Locked::new(1_u8), Locked::new(2_u8)];
        let pages = pair.each_ref().map(|locked| std::ptr::from_ref::<u8>(locked).addr() / 4096);
        assert_ne!(pages[0], pages[1]);
        assert_eq!((*pair[0], *pair[1]), (1, 2));
    }
}
