//! What parts of the server remember in this process, by type: one value of each, made when somebody first asks.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// The values. Nothing here is on the path of a message: what is belongs into a field or into the actor.
#[derive(Default)]
pub(super) struct State(RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl State {
    /// The value of that type.
    pub(super) fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let known = self.0.read().get(&TypeId::of::<T>()).cloned();
        if let Some(value) = known.and_then(|value| value.downcast().ok()) {
            return value;
        }
        let mut all = self.0.write();
        let value = all.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())).clone();
        // The key is the type, so this never fails; if it did, nothing would be shared.
        value.downcast().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn each_type_has_one_value() {
        let state = State::default();
        state.get::<AtomicU32>().fetch_add(1, Ordering::Relaxed);
        assert_eq!(state.get::<AtomicU32>().load(Ordering::Relaxed), 1);
        assert!(state.get::<String>().is_empty());
    }
}
