//! Private XML storage (XEP-0049): an element for each namespace and name.

use bytes::Bytes;

use super::{Rows, join};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Class, Error, Isolation, Mutate, Result, Transaction, split};

/// The longest namespace and name together, bytes: they are part of a key, and keys are limited.
pub const NAME: usize = 2_000;

/// What a user may store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// At most that many elements.
    pub elements: usize,
    /// At most that many bytes in all elements together.
    pub bytes: usize,
}

/// An element that a user stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Element {
    /// Its namespace.
    pub namespace: String,
    /// Its local name.
    pub name: String,
    /// The element as it was written.
    pub xml: Bytes,
}

/// Without its content.
impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Element({} {{{}}}, {} bytes)", self.name, self.namespace, self.xml.len())
    }
}

/// The element of that namespace and name.
pub async fn get(
    tx: &mut dyn Transaction,
    user: &Entity,
    namespace: &str,
    name: &str,
) -> Result<Option<Bytes>> {
    match key(user, namespace, name) {
        Ok(key) => split::get(tx, &key, Isolation::Serializable).await,
        // What cannot be stored is not there.
        Err(_) => Ok(None),
    }
}

/// Stores an element in place of the one of its namespace and name. `false` if that would exceed the limits; then
/// nothing is changed. [`Class::TooLarge`] if its names are longer than [`NAME`] or it is larger than
/// [`split::MAX`].
pub async fn put(tx: &mut dyn Transaction, user: &Entity, element: &Element, limits: Limits) -> Result<bool> {
    let key = key(user, &element.namespace, &element.name)?;
    let stored = join(tx, range(user), limits.elements, Isolation::Serializable).await?;
    let others = stored.rows.iter().filter(|(other, _)| *other != key);
    let (count, bytes) = others.fold((0, 0), |(count, bytes), (_, xml)| (count + 1, bytes + xml.len()));
    if stored.more || count >= limits.elements || bytes + element.xml.len() > limits.bytes {
        return Ok(false);
    }
    split::replace(tx, &key, &element.xml)?;
    Ok(true)
}

/// Removes an element.
pub fn remove(out: &mut (impl Mutate + ?Sized), user: &Entity, namespace: &str, name: &str) {
    if let Ok(key) = key(user, namespace, name) {
        split::remove(out, &key);
    }
}

/// All elements, at most `max`.
pub async fn load(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Rows<Element>> {
    let prefix = Key::of(Kind::Private, user).finish();
    let found = join(tx, range(user), max, Isolation::Serializable).await?;
    let mut rows = Vec::with_capacity(found.rows.len());
    for (key, xml) in found.rows {
        let mut parts = Parts::after(&prefix, &key)?;
        rows.push(Element { namespace: parts.text()?, name: parts.text()?, xml });
        parts.end()?;
    }
    Ok(Rows { rows, more: found.more })
}

fn range(user: &Entity) -> std::ops::Range<Bytes> {
    Key::of(Kind::Private, user).range()
}

fn key(user: &Entity, namespace: &str, name: &str) -> Result<Bytes> {
    if namespace.len() + name.len() > NAME {
        return Err(Error::new(Class::TooLarge, "the name of a private element is too long"));
    }
    Ok(Key::of(Kind::Private, user).text(namespace).text(name).finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::double::Double;

    const LIMITS: Limits = Limits { elements: 2, bytes: 40_000 };

    fn element(namespace: &str, size: usize) -> Element {
        Element { namespace: namespace.into(), name: "storage".into(), xml: vec![b'x'; size].into() }
    }

    #[tokio::test]
    async fn elements_are_kept_by_name_within_the_limits() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        for size in [30_000, 10] {
            assert!(put(&mut tx, &user, &element("a", size), LIMITS).await.unwrap());
            let stored = get(&mut tx, &user, "a", "storage").await.unwrap();
            assert_eq!(stored.map(|xml| xml.len()), Some(size));
        }
        assert!(!put(&mut tx, &user, &element("b", 39_991), LIMITS).await.unwrap());
        assert!(put(&mut tx, &user, &element("b", 39_990), LIMITS).await.unwrap());
        assert!(!put(&mut tx, &user, &element("c", 0), LIMITS).await.unwrap());
        assert!(put(&mut tx, &user, &element("b", 5), LIMITS).await.unwrap());
        let all = load(&mut tx, &user, 9).await.unwrap();
        assert_eq!(all, Rows { rows: vec![element("a", 10), element("b", 5)], more: false });
        // An operator may lower the limits: then nothing is added, not even in place of another.
        assert!(!put(&mut tx, &user, &element("c", 0), Limits { elements: 1, ..LIMITS }).await.unwrap());
        remove(&mut tx as &mut dyn Transaction, &user, "a", "storage");
        assert_eq!(get(&mut tx, &user, "a", "storage").await.unwrap(), None);
    }

    #[tokio::test]
    async fn names_are_limited_and_never_run_together() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        let long = element(&"n".repeat(NAME), 1);
        assert_eq!(put(&mut tx, &user, &long, LIMITS).await.unwrap_err().class, Class::TooLarge);
        assert_eq!(get(&mut tx, &user, &long.namespace, "storage").await.unwrap(), None);
        put(&mut tx, &user, &Element { name: "bc".into(), ..element("a", 1) }, LIMITS).await.unwrap();
        assert_eq!(get(&mut tx, &user, "ab", "c").await.unwrap(), None);
    }
}
