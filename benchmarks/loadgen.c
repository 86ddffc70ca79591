/* A light iSCSI load generator: one thread, one connection, a fixed queue depth.
 *
 *   loadgen ADDRESS PORT TARGET LUN read|write random|sequential BLOCK_BYTES DEPTH SECONDS
 *
 * SECONDS 0 goes through the whole device once. It prints one JSON line. libiscsi's tools spend more per command than the targets do at 4 KiB, so
 * they would measure themselves. Whatever arrives in one recv() is answered by one send(). Any status
 * other than GOOD ends the run with an error: a fast target that fails is not fast.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 48, MAX_DEPTH = 256, LATENCIES = 1 << 21 };
enum { SCSI_COMMAND = 0x01, LOGIN = 0x03, DATA_OUT = 0x05, NOP_OUT = 0x00 };
enum { NOP_IN = 0x20, SCSI_RESPONSE = 0x21, LOGIN_RESPONSE = 0x23, DATA_IN = 0x25, R2T = 0x31 };

static int sock;
static uint32_t command_sn = 1, expected_stat_sn;
static uint32_t peer_segment = 8192, first_burst = 65536;
static int immediate_data = 1, writing, sequential;
static uint32_t block_bytes, depth;
static uint64_t lun_field, capacity_blocks, next_sequential;

static uint8_t *out, *in;
static size_t out_size, out_used;
static const size_t in_size = 16 << 20;
static double started_at[MAX_DEPTH];
static float *latencies;
static uint64_t completed, issued, most = UINT64_MAX;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }
static void put32(uint8_t *p, uint32_t v) { p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v; }
static void put64(uint8_t *p, uint64_t v) { put32(p, v >> 32), put32(p + 4, (uint32_t)v); }
static uint32_t data_length(const uint8_t *pdu) { return get32(pdu + 4) & 0xffffff; }
static size_t padded(size_t n) { return (n + 3) & ~(size_t)3; }

static void flush_out(void) {
    for (size_t sent = 0; sent < out_used;) {
        ssize_t n = send(sock, out + sent, out_used - sent, MSG_NOSIGNAL);
        if (n <= 0) die("send: %s", strerror(errno));
        sent += n;
    }
    out_used = 0;
}

/* Begin a PDU in the output; its data, if any, is the caller's to fill. */
static uint8_t *begin_pdu(uint8_t opcode, uint8_t flags, uint32_t tag, uint32_t data_bytes) {
    if (out_used + HEADER + padded(data_bytes) > out_size) flush_out();
    uint8_t *pdu = out + out_used;
    memset(pdu, 0, HEADER);
    pdu[0] = opcode, pdu[1] = flags;
    put32(pdu + 4, data_bytes);
    put64(pdu + 8, lun_field);
    put32(pdu + 16, tag);
    put32(pdu + 28, expected_stat_sn);
    out_used += HEADER + padded(data_bytes);
    return pdu;
}

static void receive_exactly(uint8_t *into, size_t n) {
    while (n) {
        ssize_t got = recv(sock, into, n, 0);
        if (got <= 0) die("the target closed the connection");
        into += got, n -= got;
    }
}

static void receive_pdu(uint8_t *pdu) {
    receive_exactly(pdu, HEADER);
    receive_exactly(pdu + HEADER, padded(data_length(pdu)));
}

static void read_answer(const char *key, const char *value) {
    if (!strcmp(key, "MaxRecvDataSegmentLength")) peer_segment = atoi(value);
    if (!strcmp(key, "FirstBurstLength")) first_burst = atoi(value);
    if (!strcmp(key, "ImmediateData")) immediate_data = !strcmp(value, "Yes");
}

static void login(const char *target) {
    char text[1024];
    const char *keys[] = {"SessionType=Normal", "HeaderDigest=None", "DataDigest=None",
                          "InitialR2T=Yes", "ImmediateData=Yes", "MaxRecvDataSegmentLength=1048576",
                          "MaxBurstLength=1048576", "FirstBurstLength=262144", "MaxOutstandingR2T=1",
                          "MaxConnections=1", "ErrorRecoveryLevel=0", "DefaultTime2Wait=0", "DefaultTime2Retain=0"};
    int n = sprintf(text, "InitiatorName=iqn.2026-11.example.tiergate:loadgen") + 1;
    n += sprintf(text + n, "TargetName=%s", target) + 1;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) n += sprintf(text + n, "%s", keys[i]) + 1;
    uint16_t tsih = 0;
    for (int step = 0, stage = 1; stage != 3; step++) {
        uint32_t length = step ? 0 : n;
        uint8_t *pdu = begin_pdu(0x40 | LOGIN, 0x87, 1, length);
        put64(pdu + 8, 0x8000000000000000ull | (uint64_t)(getpid() & 0xffffff) << 32 | (uint64_t)tsih);
        put32(pdu + 24, command_sn);
        memcpy(pdu + HEADER, text, length);
        flush_out();
        receive_pdu(in);
        if ((in[0] & 0x3f) != LOGIN_RESPONSE || in[36]) die("login refused: %02x%02x", in[36], in[37]);
        expected_stat_sn = get32(in + 24) + 1;
        for (char *at = (char *)in + HEADER, *end = at + data_length(in); at < end; at += strlen(at) + 1) {
            char *equals = strchr(at, '=');
            if (equals) *equals = 0, read_answer(at, equals + 1), *equals = '=';
        }
        if (in[1] & 0x80) stage = in[1] & 3;
        if (step > 4) die("login does not end");
    }
}

/* One command at a time, for set-up. Returns the SCSI status. */
static uint8_t simple_command(const uint8_t *cdb, uint32_t expected) {
    uint8_t *pdu = begin_pdu(SCSI_COMMAND, 0x81 | (expected ? 0x40 : 0), 0x7ffffff0, 0);
    put32(pdu + 20, expected);
    put32(pdu + 24, command_sn++);
    memcpy(pdu + 32, cdb, 16);
    flush_out();
    for (;;) {
        receive_pdu(in);
        uint8_t opcode = in[0] & 0x3f, ended = opcode == SCSI_RESPONSE || (opcode == DATA_IN && in[1] & 1);
        if (ended) {
            expected_stat_sn = get32(in + 24) + 1;
            return in[3];
        }
    }
}

static void find_capacity(void) {
    uint8_t ready[16] = {0}, capacity[16] = {[0] = 0x9e, [1] = 0x10, [13] = 32};
    for (int tries = 0; tries < 8 && simple_command(ready, 0); tries++) {}
    if (simple_command(capacity, 32)) die("READ CAPACITY failed");
    const uint8_t *answer = in + HEADER;
    uint64_t blocks = ((uint64_t)get32(answer) << 32 | get32(answer + 4)) + 1;
    if (get32(answer + 8) != 512) die("only 512-byte blocks are measured");
    capacity_blocks = blocks;
}

static uint64_t random_number(void) {
    static uint64_t state = 0x9e3779b97f4a7c15ull;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

static void issue(uint32_t tag) {
    uint32_t blocks = block_bytes / 512, attached = 0;
    uint64_t slots = capacity_blocks / blocks;
    uint64_t lba = (sequential ? next_sequential++ % slots : random_number() % slots) * blocks;
    if (writing && immediate_data) {
        attached = block_bytes;
        if (attached > first_burst) attached = first_burst;
        if (attached > peer_segment) attached = peer_segment;
    }
    uint8_t *pdu = begin_pdu(SCSI_COMMAND, 0x81 | (writing ? 0x20 : 0x40), tag, attached);
    put32(pdu + 20, block_bytes);
    put32(pdu + 24, command_sn++);
    pdu[32] = writing ? 0x8a : 0x88;
    put64(pdu + 34, lba);
    put32(pdu + 42, blocks);
    started_at[tag] = now();
    issued++;
}

/* What lies in the output buffer at a PDU's data is sent as it is: benchmark data has no meaning. */
static void answer_r2t(const uint8_t *r2t) {
    uint32_t tag = get32(r2t + 16), transfer_tag = get32(r2t + 20), offset = get32(r2t + 40), left = get32(r2t + 44);
    for (uint32_t data_sn = 0; left; data_sn++) {
        uint32_t length = left < peer_segment ? left : peer_segment;
        uint8_t *pdu = begin_pdu(DATA_OUT, length == left ? 0x80 : 0, tag, length);
        put32(pdu + 20, transfer_tag);
        put32(pdu + 36, data_sn);
        put32(pdu + 40, offset);
        offset += length, left -= length;
    }
}

static void complete(const uint8_t *pdu) {
    uint32_t tag = get32(pdu + 16);
    if (pdu[3]) die("status %02x", pdu[3]);
    expected_stat_sn = get32(pdu + 24) + 1;
    if (completed < LATENCIES) latencies[completed] = (now() - started_at[tag]) * 1e6;
    completed++;
    if (issued < most) issue(tag);
}

static void handle(const uint8_t *pdu) {
    switch (pdu[0] & 0x3f) {
    case DATA_IN:
        if (pdu[1] & 1) complete(pdu);
        break;
    case SCSI_RESPONSE:
        complete(pdu);
        break;
    case R2T:
        answer_r2t(pdu);
        break;
    case NOP_IN:
        if (get32(pdu + 20) != 0xffffffff) {
            uint8_t *answer = begin_pdu(0x40 | NOP_OUT, 0x80, 0xffffffff, 0);
            put32(answer + 20, get32(pdu + 20));
            put32(answer + 24, command_sn);
        }
        break;
    default:
        die("unexpected opcode %02x", pdu[0] & 0x3f);
    }
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 10) die("usage: ADDRESS PORT TARGET LUN read|write random|sequential BLOCK_BYTES DEPTH SECONDS");
    writing = !strcmp(argv[5], "write"), sequential = !strcmp(argv[6], "sequential");
    block_bytes = atoi(argv[7]), depth = atoi(argv[8]);
    double seconds = atof(argv[9]);
    if (!depth || depth > MAX_DEPTH || !block_bytes || block_bytes % 512) die("bad depth or block size");
    out_size = (size_t)4 << 20, out = malloc(out_size), in = malloc(in_size);
    latencies = malloc(LATENCIES * sizeof *latencies);
    memset(out, 0xa5, out_size);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) die("bad address %s", argv[1]);
    sock = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(sock, (struct sockaddr *)&address, sizeof address)) die("connect: %s", strerror(errno));
    int on = 1;
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    login(argv[3]);
    lun_field = (uint64_t)atoi(argv[4]) << 48;
    find_capacity();

    if (seconds == 0) most = capacity_blocks / (block_bytes / 512), seconds = 1e9;
    double begin = now(), end = begin + seconds, last = begin;
    size_t have = 0;
    for (uint32_t tag = 0; tag < depth && issued < most; tag++) issue(tag);
    while ((last = now()) < end && completed < most) {
        flush_out();
        ssize_t got = recv(sock, in + have, in_size - have, 0);
        if (got <= 0) die("the target closed the connection");
        have += got;
        size_t at = 0;
        while (have - at >= HEADER && have - at >= HEADER + padded(data_length(in + at))) {
            handle(in + at);
            at += HEADER + padded(data_length(in + at));
        }
        memmove(in, in + at, have -= at);
    }
    double took = last - begin;
    size_t measured = completed < LATENCIES ? completed : LATENCIES;
    qsort(latencies, measured, sizeof *latencies, ascending);
    printf("{\"commands\": %llu, \"iops\": %.0f, \"mb_s\": %.1f, \"p50_us\": %.0f, \"p99_us\": %.0f}\n",
           (unsigned long long)completed, completed / took, completed * (double)block_bytes / took / 1e6,
           measured ? latencies[measured / 2] : 0, measured ? latencies[measured * 99 / 100] : 0);
    return 0;
}
