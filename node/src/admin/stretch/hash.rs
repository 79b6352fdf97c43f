//! The compression functions of SHA-1, SHA-256 and SHA-512 (FIPS 180-4) over several blocks side by side, one in each
//! lane of a vector. Checked against the crates that hash everywhere else.

use super::vector::Vector;

/// A hash of the Merkle–Damgård kind, in lanes.
pub(super) trait Hash<S: Vector> {
    /// Words of the state, which are the digest.
    const WORDS: usize;
    /// What the state begins with.
    fn initial(s: S) -> State<S>;
    /// Takes in one block in each lane.
    fn compress(s: S, state: &mut State<S>, block: &Block<S>);
}

/// The state; SHA-1 uses five words of it.
pub(super) type State<S> = [<S as Vector>::V; 8];
/// One block in each lane.
pub(super) type Block<S> = [<S as Vector>::V; 16];

/// SHA-512.
pub(super) struct Sha512;
/// SHA-256.
pub(super) struct Sha256;
/// SHA-1.
pub(super) struct Sha1;

/// Three rotations, each given to the right and to the left.
macro_rules! big {
    ($s:ident, $x:expr, [$r0:literal $l0:literal, $r1:literal $l1:literal, $r2:literal $l2:literal]) => {{
        let x = $x;
        $s.xor($s.xor($s.ror::<$r0, $l0>(x), $s.ror::<$r1, $l1>(x)), $s.ror::<$r2, $l2>(x))
    }};
}

/// Two rotations and a shift.
macro_rules! small {
    ($s:ident, $x:expr, [$r0:literal $l0:literal, $r1:literal $l1:literal, $shift:literal]) => {{
        let x = $x;
        $s.xor($s.xor($s.ror::<$r0, $l0>(x), $s.ror::<$r1, $l1>(x)), $s.shr::<$shift>(x))
    }};
}

/// SHA-256 and SHA-512 differ in words, constants and the amounts of rotation.
macro_rules! sha2 {
    ($name:ident, $word:ty, $rounds:expr, $initial:expr, $k:expr, $e:tt, $a:tt, $w1:tt, $w0:tt) => {
        impl<S: Vector<Word = $word>> Hash<S> for $name {
            const WORDS: usize = 8;

            #[inline(always)]
            fn initial(s: S) -> State<S> {
                $initial.map(|word| s.splat(word))
            }

            // Indices are constants after unrolling, and below the lengths of the arrays.
            #[allow(clippy::indexing_slicing)]
            #[inline(always)]
            fn compress(s: S, state: &mut State<S>, block: &Block<S>) {
                let mut w = *block;
                let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
                for round in 0..$rounds / 16 {
                    for i in 0..16 {
                        if round > 0 {
                            let (s0, s1) = (small!(s, w[(i + 1) % 16], $w0), small!(s, w[(i + 14) % 16], $w1));
                            w[i] = s.add(s.add(w[i], s0), s.add(w[(i + 9) % 16], s1));
                        }
                        let k = s.splat($k[round * 16 + i]);
                        let choice = s.xor(g, s.and(e, s.xor(f, g)));
                        let t1 = s.add(s.add(s.add(h, big!(s, e, $e)), choice), s.add(w[i], k));
                        let majority = s.xor(s.and(a, s.xor(b, c)), s.and(b, c));
                        let t2 = s.add(big!(s, a, $a), majority);
                        (h, g, f, e, d, c, b, a) = (g, f, e, s.add(d, t1), c, b, a, s.add(t1, t2));
                    }
                }
                for (word, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                    *word = s.add(*word, more);
                }
            }
        }
    };
}

#[rustfmt::skip]
sha2!(Sha512, u64, 80, IV512, K512, [14 50, 18 46, 41 23], [28 36, 34 30, 39 25], [19 45, 61 3, 6], [1 63, 8 56, 7]);
#[rustfmt::skip]
sha2!(Sha256, u32, 64, IV256, K256, [6 26, 11 21, 25 7], [2 30, 13 19, 22 10], [17 15, 19 13, 10], [7 25, 18 14, 3]);

impl<S: Vector<Word = u32>> Hash<S> for Sha1 {
    const WORDS: usize = 5;

    #[inline(always)]
    fn initial(s: S) -> State<S> {
        [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0, 0, 0, 0].map(|word| s.splat(word))
    }

    #[allow(clippy::indexing_slicing)] // as above
    #[inline(always)]
    fn compress(s: S, state: &mut State<S>, block: &Block<S>) {
        let mut w = *block;
        let [mut a, mut b, mut c, mut d, mut e, ..] = *state;
        for i in 0..80 {
            if i >= 16 {
                let x = s.xor(s.xor(w[(i + 13) % 16], w[(i + 8) % 16]), s.xor(w[(i + 2) % 16], w[i % 16]));
                w[i % 16] = s.ror::<31, 1>(x);
            }
            let parity = s.xor(s.xor(b, c), d);
            let (f, k) = match i / 20 {
                0 => (s.xor(d, s.and(b, s.xor(c, d))), 0x5a82_7999),
                1 => (parity, 0x6ed9_eba1),
                2 => (s.xor(s.and(b, s.xor(c, d)), s.and(c, d)), 0x8f1b_bcdc),
                _ => (parity, 0xca62_c1d6),
            };
            let t = s.add(s.add(s.add(s.ror::<27, 5>(a), f), s.add(e, s.splat(k))), w[i % 16]);
            (e, d, c, b, a) = (d, c, s.ror::<2, 30>(b), a, t);
        }
        for (word, more) in state.iter_mut().zip([a, b, c, d, e]) {
            *word = s.add(*word, more);
        }
    }
}

const IV512: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

const IV256: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[rustfmt::skip]
const K256: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

#[rustfmt::skip]
const K512: [u64; 80] = [
    0x428a_2f98_d728_ae22, 0x7137_4491_23ef_65cd, 0xb5c0_fbcf_ec4d_3b2f, 0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538, 0x59f1_11f1_b605_d019, 0x923f_82a4_af19_4f9b, 0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242, 0x1283_5b01_4570_6fbe, 0x2431_85be_4ee4_b28c, 0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f, 0x80de_b1fe_3b16_96b1, 0x9bdc_06a7_25c7_1235, 0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2, 0xefbe_4786_384f_25e3, 0x0fc1_9dc6_8b8c_d5b5, 0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275, 0x4a74_84aa_6ea6_e483, 0x5cb0_a9dc_bd41_fbd4, 0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab, 0xa831_c66d_2db4_3210, 0xb003_27c8_98fb_213f, 0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2, 0xd5a7_9147_930a_a725, 0x06ca_6351_e003_826f, 0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc, 0x2e1b_2138_5c26_c926, 0x4d2c_6dfc_5ac4_2aed, 0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de, 0x766a_0abb_3c77_b2a8, 0x81c2_c92e_47ed_aee6, 0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364, 0xa81a_664b_bc42_3001, 0xc24b_8b70_d0f8_9791, 0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218, 0xd699_0624_5565_a910, 0xf40e_3585_5771_202a, 0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8, 0x1e37_6c08_5141_ab53, 0x2748_774c_df8e_eb99, 0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63, 0x4ed8_aa4a_e341_8acb, 0x5b9c_ca4f_7763_e373, 0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc, 0x78a5_636f_4317_2f60, 0x84c8_7814_a1f0_ab72, 0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28, 0xa450_6ceb_de82_bde9, 0xbef9_a3f7_b2c6_7915, 0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c, 0xd186_b8c7_21c0_c207, 0xeada_7dd6_cde0_eb1e, 0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba, 0x0a63_7dc5_a2c8_98a6, 0x113f_9804_bef9_0dae, 0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84, 0x32ca_ab7b_40c7_2493, 0x3c9e_be0a_15c9_bebc, 0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6, 0x597f_299c_fc65_7e2a, 0x5fcb_6fab_3ad6_faec, 0x6c44_198c_4a47_5817,
];
