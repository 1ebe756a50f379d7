//! The open rooms of a node, by name and by the key that media events carry. A name may pass to a
//! newer room while the task of the older one still ends; a key never does.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use sluice_engine::api::RoomKey;
use tokio::sync::mpsc;

use crate::room_handle::RoomHandle;
use crate::task::RoomInput;

/// See the module.
#[derive(Default)]
pub(crate) struct Registry {
    by_name: DashMap<String, RoomHandle>,
    by_key: DashMap<RoomKey, mpsc::Sender<RoomInput>>,
    last_key: AtomicU64,
}

impl Registry {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<RoomHandle> {
        self.by_name.get(name).map(|handle| handle.clone())
    }

    /// Where media events of a room go.
    pub(crate) fn inbox_of(&self, key: RoomKey) -> Option<mpsc::Sender<RoomInput>> {
        self.by_key.get(&key).map(|inbox| inbox.clone())
    }

    /// Rooms of these names; none = all.
    pub(crate) fn list(&self, names: &[String]) -> Vec<RoomHandle> {
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        let rooms = self.by_name.iter().filter(|entry| wanted(entry.key()));
        rooms.map(|entry| entry.value().clone()).collect()
    }

    pub(crate) fn get_or_insert_with(
        &self,
        name: &str,
        make: impl FnOnce() -> RoomHandle,
    ) -> RoomHandle {
        if let Some(handle) = self.get(name) {
            return handle;
        }
        match self.by_name.entry(name.to_owned()) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => entry.insert(make()).clone(),
        }
    }

    /// A key that no room had before.
    pub(crate) fn next_key(&self) -> RoomKey {
        RoomKey(self.last_key.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// From now on media events with this key go there.
    pub(crate) fn route(&self, key: RoomKey, inbox: mpsc::Sender<RoomInput>) {
        self.by_key.insert(key, inbox);
    }

    /// Makes a name free at once; the room that had it still gets its media events.
    pub(crate) fn free_name(&self, name: &str) {
        self.by_name.remove(name);
    }

    /// Removes a room that is over, unless a newer one has its name.
    pub(crate) fn forget(&self, name: &str, key: RoomKey) {
        self.by_name.remove_if(name, |_, handle| handle.key == key);
        self.by_key.remove(&key);
    }
}
