# cython: language_level=3, binding=False
"""A second thread that carries out one write beside the event loop's own.

It shares a slot with the one who asks, and the slot's state says whose turn it is:

    EMPTY -- begin --> POSTED -- the thread --> TAKEN -- the thread --> DONE -- end --> EMPTY
                       POSTED -- end takes the write back, and carries it out itself --> EMPTY

So nobody ever waits for the thread to wake up: whoever comes first does the write, and ``end`` waits only for one
that is under way. For a moment after a write the thread looks for the next one, then it sleeps (futex(2)). The one
who sleeps says so before it looks at the state for the last time, and the other changes the state before it looks
who sleeps; all of it is sequentially consistent, so that one of them sees the other, and no wake-up is lost.

Waking it up costs the one who asks as much as writing 100 KiB. So it is woken for what is large, and for what follows
another write at once: it will be awake for the next. A small write that comes alone is left to ``end``.

The thread runs without the GIL and touches no Python object: buffers are exported from ``begin`` to ``end``.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t

import os


cdef extern from *:
    """
    #include <errno.h>
    #include <linux/futex.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdatomic.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>

    #if defined(__x86_64__) || defined(__i386__)
    #define RELAX() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define RELAX() __asm__ volatile("yield")
    #else
    #define RELAX() ((void)0)
    #endif

    enum state { EMPTY, POSTED, TAKEN, DONE, ENDING };
    enum { PARTS = 64, SPIN_NS = 10000, WAKING_PAYS_BYTES = 256 << 10 };

    typedef struct {
        _Atomic int state;
        _Atomic int helper_sleeps, asker_sleeps;
        int fd, flags;
        struct iovec parts[PARTS];
        int count;
        size_t bytes; /* of all parts */
        off_t offset;
        ssize_t answer;
        int64_t ended; /* when the last write did */
        pthread_t thread;
    } slot_t;

    static int64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
    }

    static void sleep_while(slot_t *slot, int state) {
        syscall(SYS_futex, &slot->state, FUTEX_WAIT_PRIVATE, state, NULL, NULL, 0);
    }

    static void wake(slot_t *slot) {
        syscall(SYS_futex, &slot->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }

    static void write_now(slot_t *slot) {
        ssize_t done = pwritev2(slot->fd, slot->parts, slot->count, slot->offset, slot->flags);
        slot->answer = done < 0 ? -errno : done;
    }

    static int take(slot_t *slot, int next) {
        int posted = POSTED;
        return atomic_compare_exchange_strong(&slot->state, &posted, next);
    }

    static void help(slot_t *slot) {
        write_now(slot);
        atomic_store(&slot->state, DONE);
        if (atomic_load(&slot->asker_sleeps)) wake(slot);
    }

    static void *helper(void *argument) {
        slot_t *slot = argument;
        for (;;) {
            int64_t until = now_ns() + SPIN_NS;
            while (now_ns() < until) {
                if (take(slot, TAKEN)) {
                    help(slot);
                    until = now_ns() + SPIN_NS;
                }
                RELAX();
            }
            atomic_store(&slot->helper_sleeps, 1);
            int state = atomic_load(&slot->state);
            if (state == ENDING) return NULL;
            if (state != POSTED) sleep_while(slot, state);
            atomic_store(&slot->helper_sleeps, 0);
        }
    }

    /* Signals are for the thread that runs Python. */
    static int slot_start(slot_t *slot) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int failed = pthread_create(&slot->thread, NULL, helper, slot);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!failed) pthread_setname_np(slot->thread, "second-hand");
        return failed;
    }

    static void slot_begin(slot_t *slot) {
        int pays = slot->bytes >= WAKING_PAYS_BYTES || now_ns() - slot->ended < SPIN_NS;
        atomic_store(&slot->state, POSTED);
        if (pays && atomic_load(&slot->helper_sleeps)) wake(slot);
    }

    static void slot_stop(slot_t *slot) {
        atomic_store(&slot->state, ENDING);
        if (atomic_load(&slot->helper_sleeps)) wake(slot);
        pthread_join(slot->thread, NULL);
    }

    static void slot_end(slot_t *slot) {
        if (take(slot, EMPTY)) {
            write_now(slot);
            slot->ended = now_ns();
            return;
        }
        int64_t until = now_ns() + 2 * SPIN_NS; /* a thread that takes longer has lost its processor: maybe to us */
        while (atomic_load(&slot->state) != DONE && now_ns() < until) RELAX();
        atomic_store(&slot->asker_sleeps, 1);
        while (atomic_load(&slot->state) != DONE) sleep_while(slot, TAKEN);
        atomic_store(&slot->asker_sleeps, 0);
        atomic_store(&slot->state, EMPTY);
        slot->ended = now_ns();
    }
    """
    enum:
        PARTS
    struct iovec:
        void *iov_base
        size_t iov_len
    ctypedef struct slot_t:
        int fd
        int flags
        iovec *parts
        int count
        size_t bytes
        int64_t offset
        Py_ssize_t answer
    int slot_start(slot_t *slot) nogil
    void slot_begin(slot_t *slot) nogil
    void slot_end(slot_t *slot) nogil
    void slot_stop(slot_t *slot) nogil


cdef class SecondHand:
    """One such thread. ``begin`` and ``end`` come in pairs, from one thread."""

    cdef slot_t slot
    cdef Py_buffer buffers[PARTS]
    cdef bint is_open
    cdef bint busy

    def __cinit__(self):
        """Start the thread.

        Raises:
            OSError: the system has no more threads.
        """
        cdef int failed = slot_start(&self.slot)
        if failed:
            raise OSError(failed, os.strerror(failed))
        self.is_open = True

    def __dealloc__(self):
        self.close()

    def begin(self, int fd, parts, int64_t offset, int flags):
        """Have ``parts`` written, with the flags of pwritev2(2); ``end`` says how it went. False: not now."""
        if self.busy or not self.is_open or len(parts) > PARTS:
            return False
        self.slot.count = 0
        self.slot.bytes = 0
        self.busy = True
        try:
            for part in parts:
                self._export(part)
        except BaseException:
            self._let_go()
            raise
        self.slot.fd = fd
        self.slot.flags = flags
        self.slot.offset = offset
        slot_begin(&self.slot)
        return True

    cdef int _export(self, part) except -1:
        cdef int number = self.slot.count
        PyObject_GetBuffer(part, &self.buffers[number], PyBUF_SIMPLE)
        self.slot.parts[number].iov_base = self.buffers[number].buf
        self.slot.parts[number].iov_len = self.buffers[number].len
        self.slot.bytes += self.buffers[number].len
        self.slot.count += 1
        return 0

    cdef void _let_go(self):
        cdef int number
        for number in range(self.slot.count):
            PyBuffer_Release(&self.buffers[number])
        self.busy = False

    def end(self):
        """Wait for the write that was begun; answer the bytes written, or minus an errno."""
        if not self.busy:
            raise RuntimeError("nothing was begun")
        with nogil:
            slot_end(&self.slot)
        self._let_go()
        return self.slot.answer

    def close(self):
        """End the thread, after the write that was begun."""
        if self.is_open:
            if self.busy:
                self.end()
            with nogil:
                slot_stop(&self.slot)
            self.is_open = False
