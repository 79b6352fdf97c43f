//! Keys of many passwords at once, for imports. Own code, because no library is fast enough to make 20,000 accounts in a
//! minute: with 10,000 iterations for each hash, the crates `pbkdf2`, `sha1` and `sha2` (which use SHA-NI) take two cores
//! 168 s, most of it for SHA-512, and AWS-LC takes 157 s; side by side in the lanes of AVX-512 it is 30 s.
//! Measured on 2 cores of a Xeon with SHA-NI and AVX-512; as soon as a crate can do this, the other files here may go.

use rookery_proto::sasl::{Credentials, Hash, ScramKeys, keys, password};

#[cfg(target_arch = "x86_64")]
#[cfg_attr(debug_assertions, allow(dead_code))] // see `stretch`
mod first;
#[cfg(target_arch = "x86_64")]
#[cfg_attr(debug_assertions, allow(dead_code))]
mod hash;
#[cfg(target_arch = "x86_64")]
#[cfg_attr(debug_assertions, allow(dead_code))]
mod lanes;
#[cfg(target_arch = "x86_64")]
#[cfg_attr(debug_assertions, allow(dead_code))]
mod vector;

/// So many passwords make whole groups for every kind of vector.
pub(super) const LANES: usize = 16;

/// One password to stretch.
struct Job<'a> {
    /// Prepared (RFC 8265).
    password: &'a str,
    salt: [u8; 16],
}

/// The credentials of each password, as [`Credentials::derive`] makes them one by one. `salt` makes fresh salts. The
/// error is for the operator.
pub(super) fn derive_all(
    passwords: &[&str],
    iterations: u32,
    salt: &dyn Fn() -> [u8; 16],
) -> Vec<Result<Credentials, String>> {
    let prepared: Vec<_> = passwords.iter().map(|text| password::prepare(text)).collect();
    let keys = |hash| {
        let sound = prepared.iter().filter_map(|text| text.as_deref().ok());
        let jobs: Vec<Job<'_>> = sound.map(|password| Job { password, salt: salt() }).collect();
        stretch(hash, &jobs, iterations).into_iter()
    };
    let (mut sha1, mut sha256, mut sha512) = (keys(Hash::Sha1), keys(Hash::Sha256), keys(Hash::Sha512));
    let mut credentials = |text: &Result<_, password::Error>| {
        if let Err(error) = text {
            return Err(format!("this password can't be used: {error}"));
        }
        let missing = || Err("no key was made".to_owned());
        Ok(Credentials {
            sha1: Some(sha1.next().unwrap_or_else(missing)?),
            sha256: Some(sha256.next().unwrap_or_else(missing)?),
            sha512: Some(sha512.next().unwrap_or_else(missing)?),
        })
    };
    prepared.iter().map(&mut credentials).collect()
}

fn stretch(hash: Hash, jobs: &[Job<'_>], iterations: u32) -> Vec<Result<ScramKeys, String>> {
    // Without optimisation vectors are slower than the crates, which are always optimised.
    #[cfg(all(target_arch = "x86_64", not(debug_assertions)))]
    if let Some(salted) = lanes::stretch(hash, jobs, iterations) {
        let keys = salted.iter().zip(jobs);
        return keys.map(|(salted, job)| Ok(first::keys(hash, salted, &job.salt, iterations))).collect();
    }
    let derive =
        |job: &Job<'_>| keys::derive(hash, job.password, &job.salt, iterations).map_err(|e| e.to_string());
    jobs.iter().map(derive).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8018 section 5.2 as it is written there.
    #[cfg(target_arch = "x86_64")]
    fn plainly(hash: Hash, job: &Job<'_>, rounds: u32) -> Vec<u8> {
        let mut round = first::round(hash, job);
        let mut sum = round.clone();
        for _ in 1..rounds {
            round = first::hmac(hash, job.password.as_bytes(), &[&round]);
            sum.iter_mut().zip(&round).for_each(|(sum, byte)| *sum ^= byte);
        }
        sum
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn lanes_stretch_like_the_standard() {
        let long = "x".repeat(200);
        let texts: Vec<String> =
            (0..19).map(|n| format!("password {n}")).chain([long, "a".to_owned()]).collect();
        let jobs: Vec<Job<'_>> =
            texts.iter().zip(0u8..).map(|(text, n)| Job { password: text, salt: [n; 16] }).collect();
        let wide = Hash::ALL.map(|hash| (hash, lanes::stretch(hash, &jobs, 5)));
        for (hash, made) in wide.into_iter().chain([(Hash::Sha512, lanes::half(&jobs, 5))]) {
            for (made, job) in made.into_iter().flatten().zip(&jobs) {
                assert_eq!(made, plainly(hash, job, 5), "{hash:?} {}", job.password);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn keys_are_those_of_the_mechanism() {
        let job = Job { password: "pencil", salt: [9; 16] };
        for hash in Hash::ALL {
            let salted = plainly(hash, &job, 4_096);
            let one = keys::derive(hash, job.password, &job.salt, 4_096).unwrap();
            assert_eq!(first::keys(hash, &salted, &job.salt, 4_096), one);
        }
    }

    #[test]
    fn what_can_be_no_password_is_said_in_its_place() {
        let made = derive_all(&["one", "", "three"], 4_096, &|| [3; 16]);
        assert!(made[0].is_ok() && made[1].is_err() && made[2].is_ok());
        assert!(made[2].as_ref().unwrap().verify_password("three"));
    }
}
