//! The attributes of the record at hand, by slot.

use toolgauge_proto::otlp::{AnyValueView, KeyValueView};

use super::convention::{Conventions, Slot};
use super::value;

/// Places whose keys are remembered; records have about ten attributes.
const EXPECTED_MAX: usize = 128;

/// The attributes that conventions know: those of the resource, under those of the scope, under those of the record.
/// A value that says nothing hides the one under it and counts as absent.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    values: Vec<Option<AnyValueView<'a>>>,
    /// What the next record begins with.
    inherited: Vec<Option<AnyValueView<'a>>>,
    of_resource: Vec<(Slot, Option<AnyValueView<'a>>)>,
    /// Slots that the resource or the scope fills.
    inherited_slots: Vec<Slot>,
    /// Slots that the record fills.
    own_slots: Vec<Slot>,
    scope_has_any: bool,
    /// Keys of the last record with their slots, by place: the next record usually has the same in the same order.
    expected: Vec<(&'a [u8], Option<Slot>)>,
}

impl<'a> Attributes<'a> {
    /// None yet; for conventions with so many slots.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            values: vec![None; slots],
            inherited: vec![None; slots],
            of_resource: Vec::new(),
            inherited_slots: Vec::new(),
            own_slots: Vec::with_capacity(32),
            scope_has_any: false,
            expected: Vec::with_capacity(32),
        }
    }

    /// The value in a slot, if it says something.
    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&AnyValueView<'a>> {
        self.values[usize::from(slot)].as_ref()
    }

    /// Every slot that may be filled; some may come twice.
    #[inline]
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + Clone {
        self.own_slots.iter().chain(&self.inherited_slots).copied()
    }

    /// A new resource: nothing else is left.
    pub(super) fn begin_resource(
        &mut self,
        conventions: &Conventions,
        attributes: impl Iterator<Item = KeyValueView<'a>>,
    ) {
        self.of_resource.clear();
        self.of_resource.extend(attributes.filter_map(|attribute| read(conventions, &attribute)));
        self.inherit_resource();
    }

    /// A new scope of the same resource.
    pub(super) fn begin_scope(
        &mut self,
        conventions: &Conventions,
        attributes: impl Iterator<Item = KeyValueView<'a>>,
    ) {
        if self.scope_has_any {
            self.inherit_resource();
        }
        for attribute in attributes {
            if let Some((slot, value)) = read(conventions, &attribute) {
                self.scope_has_any = true;
                self.inherit(slot, value);
            }
        }
    }

    /// A new record of the same scope.
    #[inline]
    pub(super) fn begin_record(
        &mut self,
        conventions: &Conventions,
        attributes: impl Iterator<Item = KeyValueView<'a>>,
    ) {
        for slot in self.own_slots.drain(..) {
            self.values[usize::from(slot)] = self.inherited[usize::from(slot)];
        }
        for (place, attribute) in attributes.enumerate() {
            let slot = match self.expected.get(place) {
                Some((key, slot)) if *key == attribute.key => *slot,
                _ => {
                    let slot = conventions.slot(attribute.key);
                    self.expect(place, attribute.key, slot);
                    slot
                }
            };
            if let Some(slot) = slot {
                self.values[usize::from(slot)] = said(&attribute);
                self.own_slots.push(slot);
            }
        }
    }

    fn expect(&mut self, place: usize, key: &'a [u8], slot: Option<Slot>) {
        match self.expected.get_mut(place) {
            Some(expected) => *expected = (key, slot),
            None if place < EXPECTED_MAX => self.expected.push((key, slot)),
            None => {}
        }
    }

    fn inherit_resource(&mut self) {
        for slot in self.own_slots.drain(..).chain(self.inherited_slots.drain(..)) {
            self.values[usize::from(slot)] = None;
            self.inherited[usize::from(slot)] = None;
        }
        self.scope_has_any = false;
        for (slot, value) in std::mem::take(&mut self.of_resource) {
            self.inherit(slot, value);
            self.of_resource.push((slot, value));
        }
    }

    fn inherit(&mut self, slot: Slot, value: Option<AnyValueView<'a>>) {
        self.values[usize::from(slot)] = value;
        self.inherited[usize::from(slot)] = value;
        self.inherited_slots.push(slot);
    }
}

#[inline]
fn read<'a>(conventions: &Conventions, attribute: &KeyValueView<'a>) -> Option<(Slot, Option<AnyValueView<'a>>)> {
    let slot = conventions.slot(attribute.key)?;
    Some((slot, said(attribute)))
}

#[inline]
fn said<'a>(attribute: &KeyValueView<'a>) -> Option<AnyValueView<'a>> {
    (!value::is_empty(&attribute.value)).then_some(attribute.value)
}
