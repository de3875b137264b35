//! The way of synced frames to their one consumer: a queue bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::format::HEAD_BYTES;
use super::{Frame, FrameContent};

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    sender_gone: bool,
    receiver_gone: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a wait for frames gave.
#[derive(Debug)]
pub enum Received {
    /// All frames that were there, in order; at least one.
    Frames(Vec<Frame>),
    /// None in that time.
    Nothing,
    /// There will be no more: the log is closed.
    End,
}

/// The consumer's end. When it is dropped, the log closes.
#[derive(Debug)]
pub struct FrameReceiver(Arc<Shared>);

/// The log's end.
#[derive(Debug)]
pub(super) struct FrameSender(Arc<Shared>);

/// The consumer is gone.
#[derive(Debug)]
pub(super) struct ReceiverGone;

pub(super) fn handover(bytes_max: usize) -> (FrameSender, FrameReceiver) {
    let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), bytes_max });
    (FrameSender(Arc::clone(&shared)), FrameReceiver(shared))
}

fn bytes_of(frame: &Frame) -> usize {
    match &frame.content {
        FrameContent::Export(export) => HEAD_BYTES + export.body.len(),
        FrameContent::Tick => HEAD_BYTES,
    }
}

impl FrameSender {
    /// Waits until there is room (for one frame there always is in an empty queue).
    pub(super) fn send(&self, frames: Vec<Frame>) -> Result<(), ReceiverGone> {
        let mut state = self.0.state();
        for frame in frames {
            let bytes = bytes_of(&frame);
            while !state.receiver_gone && !state.frames.is_empty() && state.bytes + bytes > self.0.bytes_max {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.receiver_gone {
                return Err(ReceiverGone);
            }
            state.bytes += bytes;
            state.frames.push_back(frame);
            self.0.changed.notify_all();
        }
        Ok(())
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        self.0.state().sender_gone = true;
        self.0.changed.notify_all();
    }
}

impl FrameReceiver {
    /// Waits at most so long for frames, and takes all there are.
    #[must_use]
    pub fn receive(&self, timeout: Duration) -> Received {
        let until = Instant::now() + timeout;
        let mut state = self.0.state();
        loop {
            if !state.frames.is_empty() {
                state.bytes = 0;
                let frames = std::mem::take(&mut state.frames).into();
                self.0.changed.notify_all();
                return Received::Frames(frames);
            }
            if state.sender_gone {
                return Received::End;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received::Nothing;
            }
            (state, _) = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Bytes of the frames that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.0.state().bytes
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receiver_gone = true;
        state.frames.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}
