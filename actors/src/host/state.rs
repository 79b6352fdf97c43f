//! What parts of the server remember in this process, by type: one value of each.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

type Value = Arc<dyn Any + Send + Sync>;

/// The values.
#[derive(Default)]
pub(super) struct State {
    /// Those that messages need: few, entered at the start, and found without a lock.
    first: OnceLock<Vec<(TypeId, Value)>>,
    /// The others, made when somebody first asks.
    more: RwLock<HashMap<TypeId, Value>>,
}

/// Values that are entered at the start.
#[derive(Default)]
pub(crate) struct Entered(Vec<(TypeId, Value)>);

impl Entered {
    /// One more.
    pub(crate) fn with<T: Default + Send + Sync + 'static>(mut self) -> Self {
        self.0.push((TypeId::of::<T>(), Arc::new(T::default())));
        self
    }
}

impl State {
    /// Enters the values that messages need; before anybody asks, and once.
    pub(super) fn enter(&self, values: Entered) {
        let _ = self.first.set(values.0);
    }

    /// The value of that type.
    pub(super) fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let id = TypeId::of::<T>();
        let first = self.first.get().and_then(|first| first.iter().find(|(of, _)| *of == id));
        let known = match first {
            Some((_, value)) => Some(value.clone()),
            None => self.more.read().get(&id).cloned(),
        };
        if let Some(value) = known.and_then(|value| value.downcast().ok()) {
            return value;
        }
        let mut all = self.more.write();
        let value = all.entry(id).or_insert_with(|| Arc::new(T::default())).clone();
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
        state.enter(Entered::default().with::<AtomicU32>());
        state.get::<AtomicU32>().fetch_add(1, Ordering::Relaxed);
        assert_eq!(state.get::<AtomicU32>().load(Ordering::Relaxed), 1);
        assert!(state.get::<String>().is_empty());
    }
}
