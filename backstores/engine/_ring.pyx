# cython: language_level=3, binding=False
"""io_uring for an event loop: vectored reads, writes and fdatasync on any buffers, mmap and slices included.

Transfers are prepared one by one and submitted together. Each holds its buffers and its future from ``readv``
or ``writev`` until ``reap`` has seen its completion, whatever becomes of the caller: the kernel writes into
memory that nobody else has freed. ``close`` therefore waits for all that is under way.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint64_t

import os


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "liburing.h" nogil:
    struct io_uring:
        pass
    struct io_uring_sqe:
        pass
    struct io_uring_cqe:
        int res

    int IORING_FSYNC_DATASYNC
    int io_uring_queue_init(unsigned entries, io_uring *ring, unsigned flags)
    void io_uring_queue_exit(io_uring *ring)
    int io_uring_register_eventfd(io_uring *ring, int fd)
    io_uring_sqe *io_uring_get_sqe(io_uring *ring)
    void io_uring_prep_readv(io_uring_sqe *sqe, int fd, const iovec *vectors, unsigned count, uint64_t offset)
    void io_uring_prep_writev2(
        io_uring_sqe *sqe, int fd, const iovec *vectors, unsigned count, uint64_t offset, int flags
    )
    void io_uring_prep_fsync(io_uring_sqe *sqe, int fd, unsigned flags)
    void io_uring_sqe_set_data(io_uring_sqe *sqe, void *data)
    void *io_uring_cqe_get_data(const io_uring_cqe *cqe)
    int io_uring_submit(io_uring *ring)
    int io_uring_submit_and_wait(io_uring *ring, unsigned count)
    unsigned io_uring_peek_batch_cqe(io_uring *ring, io_uring_cqe **cqes, unsigned count)
    void io_uring_cq_advance(io_uring *ring, unsigned count)
    unsigned io_uring_sq_ready(const io_uring *ring)


cdef enum:
    BATCH = 64  # completions looked at in one go


cdef class _Transfer:
    """What the kernel works on: buffers that stay exported until this goes."""

    cdef Py_buffer *buffers
    cdef iovec *vectors
    cdef Py_ssize_t count
    cdef object future

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            PyBuffer_Release(&self.buffers[i])
        PyMem_Free(self.buffers)
        PyMem_Free(self.vectors)

    cdef int hold(self, views, int flags) except -1:
        """Export all views and list them for the kernel."""
        cdef Py_ssize_t total = len(views)
        self.buffers = <Py_buffer *> PyMem_Malloc(total * sizeof(Py_buffer))
        self.vectors = <iovec *> PyMem_Malloc(total * sizeof(iovec))
        if self.buffers == NULL or self.vectors == NULL:
            raise MemoryError
        for view in views:
            if self.count == total:
                raise RuntimeError("the views changed while they were being listed")
            PyObject_GetBuffer(view, &self.buffers[self.count], flags)
            self.vectors[self.count].iov_base = self.buffers[self.count].buf
            self.vectors[self.count].iov_len = self.buffers[self.count].len
            self.count += 1
        return 0


cdef class Ring:
    """One io_uring. All calls come from one thread."""

    cdef io_uring ring
    cdef bint is_open
    cdef readonly Py_ssize_t in_flight  # prepared ones included

    def __cinit__(self, unsigned entries, int event_fd):
        """Make a ring that signals completions on an eventfd.

        Raises:
            OSError: the kernel has no io_uring, or does not allow it.
        """
        cdef int answer = io_uring_queue_init(entries, &self.ring, 0)
        _checked(answer)
        self.is_open = True
        _checked(io_uring_register_eventfd(&self.ring, event_fd))

    def __dealloc__(self):
        if self.is_open:
            self.drain(settle=False)
            io_uring_queue_exit(&self.ring)

    def readv(self, int fd, views, int64_t offset, future):
        """Prepare a read that sets ``future`` to the bytes read or minus an errno; False: the ring is full."""
        cdef _Transfer transfer = _Transfer.__new__(_Transfer)
        transfer.hold(views, PyBUF_WRITABLE)
        cdef io_uring_sqe *entry = self.entry()
        if entry == NULL:
            return False
        io_uring_prep_readv(entry, fd, transfer.vectors, <unsigned> transfer.count, <uint64_t> offset)
        self.prepared(entry, transfer, future)
        return True

    def writev(self, int fd, views, int64_t offset, int flags, future):
        """Prepare a write; ``flags`` are those of pwritev2(2). Else as ``readv``."""
        cdef _Transfer transfer = _Transfer.__new__(_Transfer)
        transfer.hold(views, PyBUF_SIMPLE)
        cdef io_uring_sqe *entry = self.entry()
        if entry == NULL:
            return False
        io_uring_prep_writev2(entry, fd, transfer.vectors, <unsigned> transfer.count, <uint64_t> offset, flags)
        self.prepared(entry, transfer, future)
        return True

    def fdatasync(self, int fd, future):
        """Prepare an fdatasync that sets ``future`` to 0 or minus an errno. Else as ``readv``."""
        cdef _Transfer transfer = _Transfer.__new__(_Transfer)
        cdef io_uring_sqe *entry = self.entry()
        if entry == NULL:
            return False
        io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC)
        self.prepared(entry, transfer, future)
        return True

    def submit(self):
        """Hand what was prepared to the kernel; False: it did not take all of it, ask again."""
        io_uring_submit(&self.ring)
        return io_uring_sq_ready(&self.ring) == 0

    def reap(self):
        """Settle the futures of all that has ended."""
        self.harvest(settle=True)

    def close(self):
        """Wait for all that is under way, settle it, and give the ring back."""
        if self.is_open:
            self.drain(settle=True)
            io_uring_queue_exit(&self.ring)
            self.is_open = False

    cdef io_uring_sqe *entry(self):
        cdef io_uring_sqe *entry = io_uring_get_sqe(&self.ring)
        if entry == NULL:
            io_uring_submit(&self.ring)
            entry = io_uring_get_sqe(&self.ring)
        return entry

    cdef void prepared(self, io_uring_sqe *entry, _Transfer transfer, future):
        transfer.future = future
        Py_INCREF(transfer)  # the kernel's reference, until harvest
        io_uring_sqe_set_data(entry, <void *> transfer)
        self.in_flight += 1

    cdef int harvest(self, bint settle) except -1:
        cdef io_uring_cqe *ended[BATCH]
        cdef unsigned count = BATCH
        cdef unsigned i
        cdef _Transfer transfer
        while count:  # a batch that is not full may have left completions that the ring had no room for
            count = io_uring_peek_batch_cqe(&self.ring, ended, BATCH)
            for i in range(count):
                transfer = <_Transfer> io_uring_cqe_get_data(ended[i])
                Py_DECREF(transfer)
                self.in_flight -= 1
                if settle:
                    transfer.future.set_result(ended[i].res)
            io_uring_cq_advance(&self.ring, count)
        return 0

    cdef int drain(self, bint settle) except -1:
        cdef int answer
        while self.in_flight:
            with nogil:
                answer = io_uring_submit_and_wait(&self.ring, 1)
            self.harvest(settle)
        return 0


cdef int _checked(int answer) except -1:
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer
