//! PBKDF2 (RFC 8018 section 5.2) of several passwords side by side: eight or sixteen cost little more than one.

use std::marker::PhantomData;

use pulp::NullaryFnOnce;
use pulp::bytemuck::{Pod, Zeroable as _, cast_slice, cast_slice_mut};
use pulp::x86::{V3, V4};
use rookery_proto::sasl;

use super::hash::{Block, Hash, Sha1, Sha256, Sha512};
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
    // SHA-1 and SHA-256 have instructions of their own, which the eight lanes of AVX2 do not beat.
    let Some(v) = V4::try_new().filter(|_| jobs.len() > 1) else {
        return if hash == sasl::Hash::Sha512 && jobs.len() > 1 { half(jobs, rounds) } else { None };
    };
    let all = match hash {
        sasl::Hash::Sha512 => jobs
            .chunks(8)
            .map(|jobs| v.vectorize(Group::<_, Sha512>::new(Wide64(v), hash, jobs, rounds)))
            .collect(),
        sasl::Hash::Sha256 => jobs
            .chunks(16)
            .map(|jobs| v.vectorize(Group::<_, Sha256>::new(Wide32(v), hash, jobs, rounds)))
            .collect(),
        sasl::Hash::Sha1 => jobs
            .chunks(16)
            .map(|jobs| v.vectorize(Group::<_, Sha1>::new(Wide32(v), hash, jobs, rounds)))
            .collect(),
    };
    Some(flat(all))
}

/// SHA-512 with AVX2 alone; `None` if the processor has not even that.
pub(super) fn half(jobs: &[Job<'_>], rounds: u32) -> Option<Vec<Vec<u8>>> {
    let v = V3::try_new()?;
    let hash = sasl::Hash::Sha512;
    let group = |jobs| v.vectorize(Group::<_, Sha512>::new(Half64(v), hash, jobs, rounds));
    Some(flat(jobs.chunks(4).map(group).collect()))
}

fn flat(all: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    all.into_iter().flatten().collect()
}

/// One group: at most as many jobs as there are lanes. The lanes beyond hash zeros. (A type of its own: a closure would not
/// reliably become part of the code that is compiled for the vectors.)
struct Group<'a, S, H> {
    s: S,
    hash: sasl::Hash,
    jobs: &'a [Job<'a>],
    rounds: u32,
    lanes: PhantomData<H>,
}

impl<'a, S, H> Group<'a, S, H> {
    fn new(s: S, hash: sasl::Hash, jobs: &'a [Job<'a>], rounds: u32) -> Self {
        Self { s, hash, jobs, rounds, lanes: PhantomData }
    }
}

impl<S: Vector<Word: Word>, H: Hash<S>> NullaryFnOnce for Group<'_, S, H> {
    type Output = Vec<Vec<u8>>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self { s, hash, jobs, rounds, .. } = self;
        let block_bytes = 16 * S::Word::BYTES;
        // RFC 2104 section 2: the states behind the padded keys.
        let mut keyed = [H::initial(s); 2];
        for (state, pad) in keyed.iter_mut().zip([0x36, 0x5c]) {
            H::compress(s, state, &gather::<S>(&padded(hash, jobs, block_bytes, pad)));
        }
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
            for begin in &keyed {
                let mut state = *begin;
                H::compress(s, &mut state, &message);
                for (word, from) in message.iter_mut().zip(&state).take(H::WORDS) {
                    *word = *from;
                }
            }
            for (sum, word) in sum.iter_mut().zip(&message).take(H::WORDS) {
                *sum = s.xor(*sum, *word);
            }
        }
        scatter::<S>(&sum, H::WORDS, jobs.len())
    }
}

fn padded(hash: sasl::Hash, jobs: &[Job<'_>], block: usize, pad: u8) -> Vec<Vec<u8>> {
    let key = |job: &Job<'_>| {
        first::key(hash, job.password.as_bytes(), block).into_iter().map(|b| b ^ pad).collect()
    };
    jobs.iter().map(key).collect()
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
