//! Keys of many passwords. For now one after the other.

use rookery_proto::sasl::Credentials;

/// How many passwords are stretched side by side.
pub(super) const LANES: usize = 8;

/// The credentials of each (password, seed), as [`Credentials::derive`] makes them; the error is for the operator.
pub(super) fn derive_all(
    passwords: &[(&str, [u8; 32])],
    iterations: u32,
) -> Vec<Result<Credentials, String>> {
    let derive = |(password, seed): &(&str, [u8; 32])| {
        Credentials::derive(password, seed, iterations)
            .map_err(|e| format!("this password can't be used: {e}"))
    };
    passwords.iter().map(derive).collect()
}
