//! One stream of a connection, as the work behind it sees it.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use kiln_protocol::{
    Channel, Control, Failure, Frame, MAX_DATA, ReceiveWindow, Reply, WINDOW, WindowExceeded,
};
use tokio::sync::{Semaphore, mpsc};

use crate::outbox::Outbox;

/// What the host sends as data.
#[derive(Debug)]
pub(crate) enum Input {
    Bytes(Bytes),
    End,
}

/// The sending half, and the accounts of both.
#[derive(Debug)]
pub(crate) struct Stream {
    id: u32,
    outbox: Rc<Outbox>,
    credit: Semaphore,
    window: RefCell<ReceiveWindow>,
}

/// The connection's half: where frames of the host go.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) stream: Rc<Stream>,
    input: mpsc::UnboundedSender<Input>,
    controls: mpsc::UnboundedSender<Control>,
}

/// The receiving half. Both ends close when the connection is gone.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) input: mpsc::UnboundedReceiver<Input>,
    pub(crate) controls: mpsc::UnboundedReceiver<Control>,
}

impl Stream {
    pub(crate) fn open(id: u32, outbox: Rc<Outbox>) -> (Route, Inbound) {
        let (input_sender, input) = mpsc::unbounded_channel();
        let (controls_sender, controls) = mpsc::unbounded_channel();
        let stream = Rc::new(Self {
            id,
            outbox,
            credit: Semaphore::new(WINDOW as usize),
            window: RefCell::default(),
        });
        let route = Route { stream, input: input_sender, controls: controls_sender };
        (route, Inbound { input, controls })
    }

    /// Sends a reply. One that does not fit into a frame becomes a failure that says so.
    pub(crate) fn reply(&self, reply: Reply) {
        let frame = |reply| Frame::Reply { stream: self.id, reply };
        if let Err(error) = self.outbox.send(&frame(reply)) {
            let failure = Failure::Refused { message: error.to_string() };
            let _short_enough = self.outbox.send(&frame(Reply::Failed { failure }));
        }
    }

    /// Sends bytes when the host wants them; drops them when nobody does.
    pub(crate) async fn data(&self, channel: Channel, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(MAX_DATA));
            let size = chunk.len();
            let Ok(permit) = self.credit.acquire_many(size as u32).await else { return };
            permit.forget();
            let frame = Frame::Data { stream: self.id, channel, bytes: chunk };
            let _within_the_limits = self.outbox.send_data(&frame, size).await;
        }
    }

    /// Notes that bytes of the host were used up.
    pub(crate) fn consumed(&self, bytes: usize) {
        if let Some(bytes) = self.window.borrow_mut().consumed(bytes as u32) {
            let _always_fits = self.outbox.send(&Frame::Credit { stream: self.id, bytes });
        }
    }

    /// Whether data is dropped: the host said so, or is gone.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.credit.is_closed()
    }

    /// From now on data is dropped.
    pub(crate) fn close(&self) {
        self.credit.close();
    }
}

impl Route {
    pub(crate) fn data(&self, bytes: Bytes) -> Result<(), WindowExceeded> {
        self.stream.window.borrow_mut().arrived(bytes.len() as u32)?;
        let _the_work_may_have_ended = self.input.send(Input::Bytes(bytes));
        Ok(())
    }

    pub(crate) fn end(&self) {
        let _the_work_may_have_ended = self.input.send(Input::End);
    }

    pub(crate) fn control(&self, control: Control) {
        let _the_work_may_have_ended = self.controls.send(control);
    }

    pub(crate) fn credit(&self, bytes: u32) -> Result<(), String> {
        let credit = &self.stream.credit;
        if credit.available_permits() + bytes as usize > WINDOW as usize {
            return Err(format!("credit of {bytes} bytes is above the window"));
        }
        if !credit.is_closed() {
            credit.add_permits(bytes as usize);
        }
        Ok(())
    }
}
