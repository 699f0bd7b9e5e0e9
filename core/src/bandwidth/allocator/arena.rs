//! Things by number, so that they can name each other.

use std::ops::{Index, IndexMut};

/// A number is given again once its thing was released.
#[derive(Debug)]
pub(super) struct Arena<T> {
    things: Vec<T>,
    free: Vec<usize>,
}

impl<T> Arena<T> {
    pub(super) fn new() -> Self {
        Self { things: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, thing: T) -> usize {
        match self.free.pop() {
            Some(number) => {
                self.things[number] = thing;
                number
            }
            None => {
                self.things.push(thing);
                self.things.len() - 1
            }
        }
    }

    /// Nobody names it any more. What it was stays until its number is given again.
    pub(super) fn release(&mut self, number: usize) {
        self.free.push(number);
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        &self.things[number]
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    fn index_mut(&mut self, number: usize) -> &mut T {
        &mut self.things[number]
    }
}
