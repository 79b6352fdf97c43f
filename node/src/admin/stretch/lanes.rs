//! PBKDF2 (RFC 8018 section 5.2) of several passwords side by side: eight or sixteen cost little more than one.

use pulp::bytemuck::{Pod, Zeroable as _, cast_slice, cast_slice_mut};
use pulp::x86::{V3, V4};
use rookery_proto::sasl;

use super::hash::{Block, Hash, Sha1, Sha256, Sha512, State};
use super::vector::{Half64, Vector, Wide32, Wide64};
use super::{Job, first};

/// A word of a hash: big-endian in bytes.
trait Word: Pod {
    const BYTES: usize;
    fn from_be(bytes: &[u8]) -> Self;
    fn to_be(self) -> Vec<u8>;
}

macro_rules! word {
    ($word:ty) => {
        impl Word for $word {
            const BYTES: usize = size_of::<Self>();
            fn from_be(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(0, Self::from_be_bytes)
            }
            fn to_be(self) -> Vec<u8> {
                self.to_be_bytes().to_vec()
            }
        }
    };
}

word!(u32);
word!(u64);

/// The stretched passwords, in order; `None` where lanes would not be faster on this processor.
pub(super) fn stretch(hash: sasl::Hash, jobs: &[Job<'_>], rounds: u32) -> Option<Vec<Vec<u8>>> {
    let (wide, narrow) = (V4::try_new(), V3::try_new());
    // Each closure must become part of the code that is compiled for the vectors.
    let groups = |lanes: usize, group: &dyn Fn(&[Job<'_>]) -> Vec<Vec<u8>>| {
        Some(jobs.chunks(lanes).flat_map(group).collect())
    };
    #[rustfmt::skip] // the attributes stay with their closures
    let stretched = match (hash, wide, narrow) {
        _ if jobs.len() < 2 => None,
        (sasl::Hash::Sha512, Some(v), _) => groups(8, &|jobs| {
            v.vectorize(#[inline(always)] || group::<_, Sha512>(Wide64(v), hash, jobs, rounds))
        }),
        (sasl::Hash::Sha256, Some(v), _) => groups(16, &|jobs| {
            v.vectorize(#[inline(always)] || group::<_, Sha256>(Wide32(v), hash, jobs, rounds))
        }),
        (sasl::Hash::Sha1, Some(v), _) => groups(16, &|jobs| {
            v.vectorize(#[inline(always)] || group::<_, Sha1>(Wide32(v), hash, jobs, rounds))
        }),
        (sasl::Hash::Sha512, None, Some(_)) => half(jobs, rounds),
        // SHA-1 and SHA-256 have instructions of their own, which eight lanes do not beat.
        _ => None,
    };
    stretched
}

/// SHA-512 with AVX2 alone; `None` if the processor has not even that.
pub(super) fn half(jobs: &[Job<'_>], rounds: u32) -> Option<Vec<Vec<u8>>> {
    let v = V3::try_new()?;
    #[rustfmt::skip] // as above
    let group = |jobs: &[Job<'_>]| {
        v.vectorize(#[inline(always)] || group::<_, Sha512>(Half64(v), sasl::Hash::Sha512, jobs, rounds))
    };
    Some(jobs.chunks(4).flat_map(group).collect())
}

/// One group: at most as many jobs as there are lanes. The lanes beyond hash zeros.
#[inline(always)]
fn group<S, H>(s: S, hash: sasl::Hash, jobs: &[Job<'_>], rounds: u32) -> Vec<Vec<u8>>
where
    S: Vector<Word: Word>,
    H: Hash<S>,
{
    let block_bytes = 16 * S::Word::BYTES;
    // RFC 2104 section 2: the states behind the padded keys.
    let (mut inner, mut outer) = (H::initial(s), H::initial(s));
    H::compress(s, &mut inner, &gather::<S>(&padded(hash, jobs, block_bytes, 0x36)));
    H::compress(s, &mut outer, &gather::<S>(&padded(hash, jobs, block_bytes, 0x5c)));
    // What is hashed from here on is always a digest behind one block of key: a bit and the length end it.
    let message = |job: &Job<'_>| {
        let mut message = first::round(hash, job);
        let bits = (block_bytes + message.len()) as u64 * 8;
        message.push(0x80);
        message.resize(block_bytes - 8, 0);
        message.extend(bits.to_be_bytes());
        message
    };
    let mut message = gather::<S>(&jobs.iter().map(message).collect::<Vec<_>>());
    let mut sum = message;
    for _ in 1..rounds {
        let mut state = inner;
        H::compress(s, &mut state, &message);
        put::<S>(&mut message, &state, H::WORDS);
        let mut state = outer;
        H::compress(s, &mut state, &message);
        put::<S>(&mut message, &state, H::WORDS);
        for (sum, word) in sum.iter_mut().zip(&state).take(H::WORDS) {
            *sum = s.xor(*sum, *word);
        }
    }
    scatter::<S>(&sum, H::WORDS, jobs.len())
}

fn padded(hash: sasl::Hash, jobs: &[Job<'_>], block: usize, pad: u8) -> Vec<Vec<u8>> {
    let key = |job: &Job<'_>| {
        first::key(hash, job.password.as_bytes(), block).into_iter().map(|b| b ^ pad).collect()
    };
    jobs.iter().map(key).collect()
}

#[inline(always)]
fn put<S: Vector>(block: &mut Block<S>, state: &State<S>, words: usize) {
    for (word, from) in block.iter_mut().zip(state).take(words) {
        *word = *from;
    }
}

/// One block of text for each lane, as words.
fn gather<S: Vector<Word: Word>>(texts: &[Vec<u8>]) -> Block<S> {
    let mut block = [S::V::zeroed(); 16];
    for (at, word) in block.iter_mut().enumerate() {
        let lanes: &mut [S::Word] = cast_slice_mut(std::slice::from_mut(word));
        let range = at * S::Word::BYTES..(at + 1) * S::Word::BYTES;
        for (lane, text) in lanes.iter_mut().zip(texts) {
            *lane = S::Word::from_be(text.get(range.clone()).unwrap_or_default());
        }
    }
    block
}

/// The way back: the first `words` words of each of the first `lanes` lanes.
fn scatter<S: Vector<Word: Word>>(block: &Block<S>, words: usize, lanes: usize) -> Vec<Vec<u8>> {
    let mut texts = vec![Vec::new(); lanes];
    for word in block.iter().take(words) {
        let all: &[S::Word] = cast_slice(std::slice::from_ref(word));
        for (text, lane) in texts.iter_mut().zip(all) {
            text.extend(lane.to_be());
        }
    }
    texts
}
