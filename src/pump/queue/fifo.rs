//! Many first-in-first-out queues in one allocation. Freed places are reused first, so
//! memory follows the largest number of entries in all queues together.

/// The places of all queues.
#[derive(Debug)]
pub(in crate::pump) struct FifoSlab<V> {
    places: Vec<Place<V>>,
    free: Option<usize>,
}

#[derive(Debug)]
struct Place<V> {
    value: Option<V>,
    /// The next place in the queue; for a free place, the next free one.
    next: Option<usize>,
}

/// One queue; use it with one slab only.
#[derive(Debug, Default)]
pub(in crate::pump) struct Fifo {
    ends: Option<Ends>,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    front: usize,
    back: usize,
}

impl<V> FifoSlab<V> {
    pub(in crate::pump) fn new() -> Self {
        FifoSlab {
            places: Vec::new(),
            free: None,
        }
    }

    pub(in crate::pump) fn push_back(&mut self, fifo: &mut Fifo, value: V) {
        let place = self.occupy(value);
        fifo.ends = Some(match fifo.ends {
            Some(Ends { front, back }) => {
                self.places[back].next = Some(place);
                Ends { front, back: place }
            }
            None => Ends {
                front: place,
                back: place,
            },
        });
    }

    pub(in crate::pump) fn front(&self, fifo: &Fifo) -> Option<&V> {
        self.places[fifo.ends?.front].value.as_ref()
    }

    pub(in crate::pump) fn pop_front(&mut self, fifo: &mut Fifo) -> Option<V> {
        let Ends { front, back } = fifo.ends?;
        let place = &mut self.places[front];
        let value = place.value.take();
        fifo.ends = place.next.map(|front| Ends { front, back });
        place.next = self.free;
        self.free = Some(front);
        value
    }

    /// Places allocated.
    #[cfg(test)]
    pub(in crate::pump) fn capacity(&self) -> usize {
        self.places.len()
    }

    fn occupy(&mut self, value: V) -> usize {
        match self.free {
            Some(index) => {
                let place = &mut self.places[index];
                self.free = place.next.take();
                place.value = Some(value);
                index
            }
            None => {
                self.places.push(Place {
                    value: Some(value),
                    next: None,
                });
                self.places.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn each_fifo_is_a_queue_and_places_are_taken_again(
            steps in proptest::collection::vec((0..4_usize, any::<bool>()), 0..200)
        ) {
            let mut slab = FifoSlab::new();
            let mut fifos: [Fifo; 4] = Default::default();
            let mut models: [VecDeque<usize>; 4] = Default::default();
            let mut most = 0;
            for (value, (which, push)) in steps.into_iter().enumerate() {
                if push {
                    slab.push_back(&mut fifos[which], value);
                    models[which].push_back(value);
                } else {
                    prop_assert_eq!(slab.pop_front(&mut fifos[which]), models[which].pop_front());
                }
                for (fifo, model) in fifos.iter().zip(&models) {
                    prop_assert_eq!(slab.front(fifo), model.front());
                }
                most = most.max(models.iter().map(VecDeque::len).sum());
                prop_assert_eq!(slab.capacity(), most);
            }
        }
    }
}
