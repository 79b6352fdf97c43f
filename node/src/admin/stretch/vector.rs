//! Vectors of words, one word in each lane, as the processor has them. pulp asks the processor once and keeps the
//! promise that only code compiled for it is called; nothing here is unsafe.

use pulp::Simd as _;
use pulp::bytemuck::{Pod, cast};
use pulp::x86::{V3, V4};

/// What hashing needs of a vector. Amounts are constants: as numbers they would need a `match` at every rotation, which
/// the compiler does not see through in time to make one instruction of it.
pub(super) trait Vector: Copy {
    /// One lane.
    type Word: Copy;
    /// All lanes: as many bytes as an array of them.
    type V: Pod;
    /// The same in every lane.
    fn splat(self, word: Self::Word) -> Self::V;
    /// Sums without carry between lanes.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// Exclusive or.
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// And.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// Rotates to the right by `R`, that is to the left by `L`.
    fn ror<const R: i32, const L: i32>(self, a: Self::V) -> Self::V;
    /// Shifts to the right by an amount that SHA uses.
    fn shr<const R: i32>(self, a: Self::V) -> Self::V;
}

/// 8 lanes of 64 bits: AVX-512.
#[derive(Clone, Copy)]
pub(super) struct Wide64(pub(super) V4);
/// 16 lanes of 32 bits: AVX-512.
#[derive(Clone, Copy)]
pub(super) struct Wide32(pub(super) V4);
/// 4 lanes of 64 bits: AVX2.
#[derive(Clone, Copy)]
pub(super) struct Half64(pub(super) V3);

macro_rules! plain {
    ($word:ty, $splat:ident, $add:ident, $xor:ident, $and:ident) => {
        #[inline(always)]
        fn splat(self, word: $word) -> Self::V {
            self.0.$splat(word)
        }

        #[inline(always)]
        fn add(self, a: Self::V, b: Self::V) -> Self::V {
            self.0.$add(a, b)
        }

        #[inline(always)]
        fn xor(self, a: Self::V, b: Self::V) -> Self::V {
            self.0.$xor(a, b)
        }

        #[inline(always)]
        fn and(self, a: Self::V, b: Self::V) -> Self::V {
            self.0.$and(a, b)
        }
    };
}

impl Vector for Wide64 {
    type Word = u64;
    type V = pulp::u64x8;

    plain!(u64, splat_u64x8, add_u64s, xor_u64s, and_u64s);

    #[inline(always)]
    fn ror<const R: i32, const L: i32>(self, a: Self::V) -> Self::V {
        cast(self.0.avx512f._mm512_ror_epi64::<R>(cast(a)))
    }

    #[inline(always)]
    fn shr<const R: i32>(self, a: Self::V) -> Self::V {
        if R == 6 { self.0.shr_const_u64x8::<6>(a) } else { self.0.shr_const_u64x8::<7>(a) }
    }
}

impl Vector for Wide32 {
    type Word = u32;
    type V = pulp::u32x16;

    plain!(u32, splat_u32x16, add_u32s, xor_u32s, and_u32s);

    #[inline(always)]
    fn ror<const R: i32, const L: i32>(self, a: Self::V) -> Self::V {
        cast(self.0.avx512f._mm512_ror_epi32::<R>(cast(a)))
    }

    #[inline(always)]
    fn shr<const R: i32>(self, a: Self::V) -> Self::V {
        if R == 3 { self.0.shr_const_u32x16::<3>(a) } else { self.0.shr_const_u32x16::<10>(a) }
    }
}

impl Vector for Half64 {
    type Word = u64;
    type V = pulp::u64x4;

    plain!(u64, splat_u64x4, add_u64s, xor_u64s, and_u64s);

    #[inline(always)]
    fn ror<const R: i32, const L: i32>(self, a: Self::V) -> Self::V {
        let v = self.0;
        v.or_u64s(v.shr_const_u64x4::<R>(a), v.shl_const_u64x4::<L>(a))
    }

    #[inline(always)]
    fn shr<const R: i32>(self, a: Self::V) -> Self::V {
        self.0.shr_const_u64x4::<R>(a)
    }
}
