//! The inner loops, for the best instructions that this machine has: AVX-512 VNNI, AVX2, or what the compiler makes of plain loops.
//!
//! The only place with `unsafe` but for mapping files, and for two reasons: functions compiled for certain instructions may be called only
//! where those exist, which [`Simd`] proves; and SIMD loads take pointers, which come from arrays of exactly their size.
#![allow(unsafe_code, reason = "said above, and at each place")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;

/// So many codes are loaded at once; rows of codes are filled up to a multiple.
pub(crate) const BLOCK: usize = 64;

/// Codes with a sign, aligned for the widest load.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [i8; BLOCK]);

/// Instructions that this machine has. Made only by asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Simd(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    /// The best of this machine.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512bw") && std::is_x86_feature_detected!("avx512vnni") {
                return Self(Level::Avx512);
            }
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                return Self(Level::Avx2);
            }
        }
        Self(Level::Portable)
    }

    /// The inner products of a query's codes with those of rows. A row's codes are `stride` bytes and 128 too large.
    /// While it works on one row, it asks memory for later ones.
    pub(crate) fn dots(self, codes: &[u8], stride: usize, query: &[Block], rows: &[u32], out: &mut Vec<i32>) {
        debug_assert_eq!(stride, query.len() * BLOCK);
        out.clear();
        match self.0 {
            Level::Portable => {
                out.extend(rows.iter().map(|&row| portable_dot(codes_of(codes, stride, row), query)));
            }
            // SAFETY: `Simd` is made only where the machine has these instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2_dots(codes, stride, query, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512_dots(codes, stride, query, rows, out) },
        }
    }

    /// The inner product.
    pub(crate) fn dot(self, a: &[f32], b: &[f32]) -> f32 {
        match self.0 {
            Level::Portable => portable_sum(a, b, |a, b| a * b),
            // SAFETY: `Simd` is made only where the machine has these instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2_dot(a, b) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512_dot(a, b) },
        }
    }

    /// The square of the distance.
    pub(crate) fn square(self, a: &[f32], b: &[f32]) -> f32 {
        match self.0 {
            Level::Portable => portable_sum(a, b, |a, b| (a - b) * (a - b)),
            // SAFETY: `Simd` is made only where the machine has these instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2_square(a, b) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512_square(a, b) },
        }
    }
}

/// Asks memory for what will be read soon. Does nothing where that is not known how.
#[inline]
pub(crate) fn prefetch<T>(soon: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        let bytes = size_of_val(soon);
        let start = soon.as_ptr().cast::<i8>();
        for at in (0..bytes).step_by(64) {
            // SAFETY: a prefetch reads nothing, and `at` is within the slice.
            unsafe { x86::_mm_prefetch::<{ x86::_MM_HINT_T0 }>(start.add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = soon;
}

#[inline]
fn codes_of(codes: &[u8], stride: usize, row: u32) -> &[[u8; BLOCK]] {
    let from = row as usize * stride;
    codes[from..from + stride].as_chunks().0
}

fn portable_dot(codes: &[[u8; BLOCK]], query: &[Block]) -> i32 {
    let mut sum = 0;
    for (codes, query) in codes.iter().zip(query) {
        sum +=
            codes.iter().zip(&query.0).map(|(&code, &query)| i32::from(code) * i32::from(query)).sum::<i32>();
    }
    sum
}

/// Sixteen sums side by side, which compilers turn into SIMD.
fn portable_sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += term(a, b);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// How many rows ahead memory is asked for.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 3;

#[cfg(target_arch = "x86_64")]
macro_rules! dots {
    ($name:ident, $features:literal, $dot:ident) => {
        #[target_feature(enable = $features)]
        fn $name(codes: &[u8], stride: usize, query: &[Block], rows: &[u32], out: &mut Vec<i32>) {
            for &row in rows.iter().take(AHEAD) {
                prefetch(codes_of(codes, stride, row));
            }
            for (at, &row) in rows.iter().enumerate() {
                if let Some(&later) = rows.get(at + AHEAD) {
                    prefetch(codes_of(codes, stride, later));
                }
                out.push($dot(codes_of(codes, stride, row), query));
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
dots!(avx512_dots, "avx512f,avx512bw,avx512vnni", avx512_code_dot);
#[cfg(target_arch = "x86_64")]
dots!(avx2_dots, "avx2,fma", avx2_code_dot);

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512_code_dot(codes: &[[u8; BLOCK]], query: &[Block]) -> i32 {
    let mut sums = [x86::_mm512_setzero_si512(); 2];
    for (at, (codes, query)) in codes.iter().zip(query).enumerate() {
        // SAFETY: both are 64 bytes, and the loads ask for no alignment.
        let (codes, query) = unsafe {
            (x86::_mm512_loadu_si512(codes.as_ptr().cast()), x86::_mm512_loadu_si512(query.0.as_ptr().cast()))
        };
        sums[at % 2] = x86::_mm512_dpbusd_epi32(sums[at % 2], codes, query);
    }
    x86::_mm512_reduce_add_epi32(x86::_mm512_add_epi32(sums[0], sums[1]))
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn avx2_code_dot(codes: &[[u8; BLOCK]], query: &[Block]) -> i32 {
    let mut sum = x86::_mm256_setzero_si256();
    for (codes, query) in codes.iter().zip(query) {
        for (codes, query) in codes.as_chunks::<16>().0.iter().zip(query.0.as_chunks::<16>().0) {
            // SAFETY: both are 16 bytes, and the loads ask for no alignment.
            let (codes, query) = unsafe {
                (x86::_mm_loadu_si128(codes.as_ptr().cast()), x86::_mm_loadu_si128(query.as_ptr().cast()))
            };
            // Widened first: the product of 8 bits by 8 bits in one step would be cut off at 16.
            let (codes, query) = (x86::_mm256_cvtepu8_epi16(codes), x86::_mm256_cvtepi8_epi16(query));
            sum = x86::_mm256_add_epi32(sum, x86::_mm256_madd_epi16(codes, query));
        }
    }
    let half = x86::_mm_add_epi32(x86::_mm256_castsi256_si128(sum), x86::_mm256_extracti128_si256::<1>(sum));
    let quarter = x86::_mm_add_epi32(half, x86::_mm_shuffle_epi32::<0b00_00_11_10>(half));
    x86::_mm_cvtsi128_si32(x86::_mm_add_epi32(quarter, x86::_mm_shuffle_epi32::<0b00_00_00_01>(quarter)))
}

/// A sum over pairs of numbers: four registers side by side, then one, then the rest by plain code.
#[cfg(target_arch = "x86_64")]
macro_rules! sum {
    ($name:ident, $features:literal, $lanes:literal, $zero:ident, $load:ident, $add:ident, $reduce:ident,
     |$sum:ident, $a:ident, $b:ident| $step:expr, $rest:expr) => {
        #[target_feature(enable = $features)]
        fn $name(a: &[f32], b: &[f32]) -> f32 {
            let ((blocks_a, rest_a), (blocks_b, rest_b)) = (a.as_chunks::<$lanes>(), b.as_chunks::<$lanes>());
            let mut sums = [x86::$zero(); 4];
            for (at, (a, b)) in blocks_a.iter().zip(blocks_b).enumerate() {
                // SAFETY: both are as long as a register, and the loads ask for no alignment.
                let ($a, $b) = unsafe { (x86::$load(a.as_ptr()), x86::$load(b.as_ptr())) };
                let $sum = sums[at % 4];
                sums[at % 4] = $step;
            }
            let sum = x86::$add(x86::$add(sums[0], sums[1]), x86::$add(sums[2], sums[3]));
            $reduce(sum) + portable_sum(rest_a, rest_b, $rest)
        }
    };
}

#[cfg(target_arch = "x86_64")]
sum!(
    avx512_dot,
    "avx512f",
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_add_ps,
    avx512_reduce,
    |sum, a, b| x86::_mm512_fmadd_ps(a, b, sum),
    |a, b| a * b
);
#[cfg(target_arch = "x86_64")]
sum!(
    avx512_square,
    "avx512f",
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_add_ps,
    avx512_reduce,
    |sum, a, b| {
        let off = x86::_mm512_sub_ps(a, b);
        x86::_mm512_fmadd_ps(off, off, sum)
    },
    |a, b| (a - b) * (a - b)
);
#[cfg(target_arch = "x86_64")]
sum!(
    avx2_dot,
    "avx2,fma",
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_add_ps,
    avx2_reduce,
    |sum, a, b| x86::_mm256_fmadd_ps(a, b, sum),
    |a, b| a * b
);
#[cfg(target_arch = "x86_64")]
sum!(
    avx2_square,
    "avx2,fma",
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_add_ps,
    avx2_reduce,
    |sum, a, b| {
        let off = x86::_mm256_sub_ps(a, b);
        x86::_mm256_fmadd_ps(off, off, sum)
    },
    |a, b| (a - b) * (a - b)
);

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn avx512_reduce(sum: x86::__m512) -> f32 {
    x86::_mm512_reduce_add_ps(sum)
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn avx2_reduce(sum: x86::__m256) -> f32 {
    let half = x86::_mm_add_ps(x86::_mm256_castps256_ps128(sum), x86::_mm256_extractf128_ps::<1>(sum));
    let quarter = x86::_mm_add_ps(half, x86::_mm_movehl_ps(half, half));
    x86::_mm_cvtss_f32(x86::_mm_add_ss(quarter, x86::_mm_shuffle_ps::<1>(quarter, quarter)))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    /// Everything that this machine has.
    fn all() -> Vec<Simd> {
        let mut all = vec![Simd(Level::Portable)];
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            all.push(Simd(Level::Avx2));
        }
        if !all.contains(&Simd::best()) {
            all.push(Simd::best());
        }
        all
    }

    #[test]
    fn every_machine_counts_alike() {
        let mut random = SmallRng::seed_from_u64(1);
        for blocks in [1, 2, 5, 12, 256] {
            let stride = blocks * BLOCK;
            let mut codes: Vec<u8> = (0..stride * 9).map(|_| random.random()).collect();
            let mut query: Vec<Block> =
                (0..blocks).map(|_| Block(std::array::from_fn(|_| random.random()))).collect();
            // The largest that there can be.
            codes[..stride].fill(255);
            query[0] = Block([-128; BLOCK]);
            let rows = [0, 8, 3, 3, 1, 7];
            let wanted: Vec<i32> = rows.map(|row| portable_dot(codes_of(&codes, stride, row), &query)).into();
            for simd in all() {
                let mut found = vec![5];
                simd.dots(&codes, stride, &query, &rows, &mut found);
                assert_eq!(found, wanted, "{simd:?}");
            }
        }
    }

    #[test]
    fn sums_are_right_at_every_length() {
        let mut random = SmallRng::seed_from_u64(2);
        for length in 0..200 {
            let mut numbers =
                || -> Vec<f32> { (0..length).map(|_| random.random_range(-1.0..1.0)).collect() };
            let (a, b) = (numbers(), numbers());
            let pairs = || a.iter().zip(&b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
            let (dot, square) = (
                pairs().map(|(a, b)| a * b).sum::<f64>(),
                pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>(),
            );
            for simd in all() {
                assert!((f64::from(simd.dot(&a, &b)) - dot).abs() < 1e-4, "{simd:?} {length}");
                assert!((f64::from(simd.square(&a, &b)) - square).abs() < 1e-4, "{simd:?} {length}");
            }
        }
    }
}
