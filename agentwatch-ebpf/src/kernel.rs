//! Reading the kernel's structures.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// One offset, as a constant to the verifier: the section is frozen before the programs load.
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::constant(&$crate::maps::OFFSETS.$field) as usize
    };
}
pub(crate) use offset;

/// Reads a field through a pointer that the verifier knows the type of: one load, checked at load time.
///
/// # Safety
/// The pointer came from a typed argument or from such a read, and the offset is that of a field of
/// type `$ty`. The verifier refuses the program if it is not so; a fault at run time reads zero.
macro_rules! field {
    ($ptr:expr, $field:ident, $ty:ty) => {
        core::ptr::read_volatile($ptr.byte_add($crate::kernel::offset!($field)).cast::<$ty>())
    };
}
pub(crate) use field;

/// Reads a word that the loader puts into the object's read-only section.
#[inline(always)]
pub fn constant(word: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read; volatile, so that the compiler does not take the value in the
    // object for the one that the loader puts there.
    unsafe { core::ptr::read_volatile(word) }
}

/// A kernel address of which the verifier knows nothing: read only through [`read`].
pub type Address = *const u8;

/// Reads kernel memory anywhere; `None` where it is not mapped.
#[inline(always)]
pub fn read<T: Copy>(from: Address) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes at most the size it is given, and copes with any source address.
    let status = unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from.cast()) };
    // SAFETY: on success the helper has written all of it, and `T` is plain data.
    if status == 0 { Some(unsafe { value.assume_init() }) } else { None }
}

/// Reads a field of plain data, zero where it is not mapped.
#[inline(always)]
pub fn read_or<T: Copy>(base: Address, offset: usize, default: T) -> T {
    read(base.wrapping_add(offset)).unwrap_or(default)
}

/// Reads a pointer field, null where it is not mapped.
#[inline(always)]
pub fn pointer(base: Address, offset: usize) -> Address {
    read_or(base, offset, 0usize) as Address
}
