//! Reading the kernel's structures.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};

use crate::maps::KERNEL_LOOPS;

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

/// A kernel address of which the verifier knows nothing: read only through [`read_field`].
pub type Address = *const u8;

/// Reads a value of plain data; all zero where memory is not mapped.
///
/// Without a branch, on purpose: each would double the paths that the verifier follows.
#[inline(always)]
pub fn read_field<T: Copy>(base: Address, offset: usize) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes the size it is given, zeros on a fault, and copes with any source address. All
    // types read here are plain integers and addresses.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            base.wrapping_add(offset).cast(),
        );
        value.assume_init()
    }
}

/// How the fields of a structure are read.
pub trait Access: Copy {
    /// Whether it is by a load.
    const LOADS: bool;

    /// Reads a field of plain data; all zero where memory is not mapped.
    fn field<T: Copy>(base: Address, offset: usize) -> T;

    /// Reads a pointer field; null where memory is not mapped.
    #[inline(always)]
    fn pointer(base: Address, offset: usize) -> Address {
        Self::field::<Address>(base, offset)
    }
}

/// By a helper: from any address.
#[derive(Clone, Copy)]
pub struct Probed;

impl Access for Probed {
    const LOADS: bool = false;

    #[inline(always)]
    fn field<T: Copy>(base: Address, offset: usize) -> T {
        read_field(base, offset)
    }
}

/// By a load, which costs a tenth: from what the verifier knows the type of, see [`field!`].
#[derive(Clone, Copy)]
pub struct Loaded;

impl Access for Loaded {
    const LOADS: bool = true;

    #[inline(always)]
    fn field<T: Copy>(base: Address, offset: usize) -> T {
        // SAFETY: the verifier refuses the program where the pointer has no type, or the type no such field there; a
        // fault at run time reads zero.
        unsafe { core::ptr::read_volatile(base.byte_add(offset).cast::<T>()) }
    }
}

/// Reads a pointer field; null where memory is not mapped.
#[inline(always)]
pub fn pointer(base: Address, offset: usize) -> Address {
    read_field::<usize>(base, offset) as Address
}

/// Two pointers of a structure of the kernel with `BETWEEN` words between them.
#[derive(Clone, Copy)]
#[repr(C)]
struct Apart<const BETWEEN: usize> {
    first: usize,
    _between: [usize; BETWEEN],
    second: usize,
}

/// Reads the pointers at two offsets: by one call where `BETWEEN` words lie between them, as a walk does for each of its
/// steps. `BETWEEN` is what current kernels need; others cost a call more.
#[inline(always)]
pub fn two_pointers<const BETWEEN: usize>(base: Address, first: usize, second: usize) -> [Address; 2] {
    if second.wrapping_sub(first) != offset_of!(Apart<BETWEEN>, second) {
        return [pointer(base, first), pointer(base, second)];
    }
    let read: Apart<BETWEEN> = read_field(base, first);
    [read.first as Address, read.second as Address]
}

/// Bounds a length in such a way that the verifier sees the bound: the compiler may not know where the value
/// comes from, or it compares one copy and uses another.
#[inline(always)]
pub fn at_most(value: u64, most: u64) -> u64 {
    let value = core::hint::black_box(value);
    if value > most { most } else { value }
}

/// Calls `step` with 0, 1, … until it gives something else than 0, at most `most` times.
///
/// The verifier looks at the step once, however often it runs. Loops of the language it would follow turn by turn, which
/// it must on kernels that have nothing else: see [`kernel_loops`].
///
/// Before 6.7 it looks at the step with the context as it is at the first turn alone, and takes out what cannot happen
/// then. So whatever a step changes must not begin with a value that the verifier knows: it lies in a map, or begins
/// with [`crate::session::zero`].
#[inline(always)]
pub fn repeat<C>(most: u32, step: extern "C" fn(u32, &mut C) -> i64, context: &mut C) {
    if kernel_loops() {
        // SAFETY: the helper calls the step with the context that it is given, which outlives the call. It is there
        // where the loader says so; elsewhere the verifier takes this call out, as it knows the constant.
        unsafe { bpf_loop(most, step as *mut _, (&raw mut *context).cast(), 0) };
        return;
    }
    for index in 0..most {
        if step(index, context) != 0 {
            return;
        }
    }
}

/// Whether the kernel runs loops for programs. Without, rules cannot be judged: following each byte of a text turn by
/// turn is more than the verifier does, so such a kernel observes only.
#[inline(always)]
pub fn kernel_loops() -> bool {
    constant(&KERNEL_LOOPS) != 0
}
