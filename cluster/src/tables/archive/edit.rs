//! Changes of entries that lie in an archive already.

use super::{ArchiveId, Collection, Entry, entry_key, quota};
use crate::entity::Entity;
use crate::store::{Isolation, Result, Transaction, split};
use crate::tables::{decode, encode};

/// Puts another entry in the place of one, as `change` says. Nothing happens if the entry is gone, or if `change` returns `None`.
/// Returns whether it was changed. The commit fails if another transaction changes the entry meanwhile.
///
/// # Errors
/// Those of the store; [`Class::Corrupt`](crate::store::Class::Corrupt) if the entry cannot be decoded,
/// [`Class::TooLarge`](crate::store::Class::TooLarge) if the new one is above [`split::MAX`] bytes.
pub async fn edit(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    id: ArchiveId,
    change: impl FnOnce(Entry) -> Option<Entry> + Send,
) -> Result<bool> {
    let key = entry_key(collection, owner, id);
    let Some(stored) = split::get(tx, &key, Isolation::Serializable).await? else { return Ok(false) };
    let before = stored.len();
    let Some(entry) = change(decode(stored)?) else { return Ok(false) };
    let entry = encode(&entry);
    split::replace(tx, &key, &entry)?;
    if entry.len() < before {
        quota::forget(tx, collection, owner, id.day()).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::archive::{append, get};
    use crate::tables::double::Double;

    #[tokio::test]
    async fn an_entry_is_changed_in_its_place() {
        let (mut tx, owner) = (Double::new(), Entity::new("juliet@a"));
        let id = ArchiveId::first_of_day(3);
        let entry = Entry { stanza: vec![b'x'; 25_000].into(), flags: 5, ..Entry::default() };
        let out: &mut dyn Transaction = &mut tx;
        append(out, Collection::Archive, &owner, id, &entry, None).unwrap();
        quota::note(&mut tx, Collection::Archive, &owner, 3, 25_000).await.unwrap();
        let rows = tx.rows.len();
        let mut edit = async |id, stanza: Option<&'static [u8]>| {
            let change = |entry| Some(Entry { stanza: stanza?.into(), ..entry });
            edit(&mut tx, Collection::Archive, &owner, id, change).await.unwrap()
        };
        assert!(!edit(id, None).await && !edit(id.before(), Some(b"y")).await);
        assert!(edit(id, Some(b"y")).await);
        assert_eq!(tx.rows.len(), rows - 2, "of three parts one is left");
        let found = get(&mut tx, Collection::Archive, &owner, id).await.unwrap();
        assert_eq!(found, Some(Entry { stanza: b"y".as_slice().into(), ..entry }));
        let days = quota::days(&mut tx, Collection::Archive, &owner).await.unwrap();
        assert_eq!(days, [(3, None)], "it is weighed again");
    }
}
