/* Carry IPv4 packets between two TUN devices, and do to them what was asked for.
 *
 *   wire CONTROL NEAR FAR LOG HOP SEED
 *
 * The first four are open file descriptors: a SOCK_SEQPACKET socket for changes, the router's and
 * the server's TUN device, and a file for one struct record for each packet.  HOP is the IPv4
 * address that ICMP messages come from.  wire.py starts it, and says what the settings mean.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FORWARD, REVERSE };
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum { ICMP = 1, TCP = 6, UDP = 17 };

enum fate {
    PASSED, DUPLICATED, REORDERED, CORRUPTED, DAMAGED, STRIPPED, FORGED,
    LOST = 16, BURST, QUEUE, POLICED, TOO_BIG, BLACKOUT, DROPPED_SYN, DROPPED_SYN_ACK, PORT,
    NEW_CONNECTION, IDLE, RESET, DROPPED_ACK, UNDELIVERED = 31
};

struct settings {
    double delay_s, jitter_s, rate, queue_bytes, queue_s, police, police_bytes;
    double loss, burst_enter, burst_leave, ack_loss, reorder, reorder_s, duplicate, corrupt, damage;
    double mtu, icmp, blackout, syn_loss, syn_ack_loss, port_loss, port_mask, port_value;
    double reset, idle_s, idle_reset, connections, linger_s;
    double strip_mss, strip_wscale, strip_sack, strip_timestamps;
};

#define NAMED(name) { #name, offsetof(struct settings, name) }
static const struct { const char *name; size_t offset; } names[] = {
    NAMED(delay_s), NAMED(jitter_s), NAMED(rate), NAMED(queue_bytes), NAMED(queue_s),
    NAMED(police), NAMED(police_bytes), NAMED(loss), NAMED(burst_enter), NAMED(burst_leave),
    NAMED(ack_loss), NAMED(reorder), NAMED(reorder_s), NAMED(duplicate), NAMED(corrupt), NAMED(damage), NAMED(mtu),
    NAMED(icmp), NAMED(blackout), NAMED(syn_loss), NAMED(syn_ack_loss), NAMED(port_loss),
    NAMED(port_mask), NAMED(port_value), NAMED(reset), NAMED(idle_s), NAMED(idle_reset),
    NAMED(connections), NAMED(linger_s), NAMED(strip_mss), NAMED(strip_wscale), NAMED(strip_sack),
    NAMED(strip_timestamps),
};

/* wire.py has the same layout.  Addresses are in network order, all else is little-endian. */
struct record {
    uint64_t number;
    int64_t in_ns, out_ns;
    uint32_t source, destination, seq, ack;
    uint16_t source_port, destination_port, size, payload;
    uint8_t direction, protocol, flags, fate;
} __attribute__((packed));

struct packet {
    struct record record;
    int64_t due_ns; /* CLOCK_MONOTONIC */
    uint64_t order; /* of packets with the same due_ns, the least goes first */
    unsigned char bytes[];
};

enum { MOST_HELD = 1 << 16 }; /* packets under way in one direction */

static struct direction {
    struct settings set;
    int in, out; /* devices */
    uint64_t random;
    int is_bursting;
    int64_t last_due_ns; /* of those that keep their order */
    int64_t free_ns;     /* when the bottleneck has sent all that waits for it */
    double tokens;       /* bytes that may pass the policer now */
    int64_t tokens_ns;   /* when that was so */
    struct packet *held[MOST_HELD]; /* a heap */
    size_t count;
} directions[2];

/* A connection, as a middlebox remembers it. */
enum { FLOWS = 1 << 14, NEAR_SLOTS = 16 };
static struct flow {
    uint32_t client, server;
    uint16_t client_port, server_port;
    int64_t last_ns;   /* 0: the slot is free */
    int64_t closed_ns; /* 0: it is open */
    uint8_t fins;      /* a bit for each direction */
    uint8_t is_dead;   /* forgotten, for having been idle */
} flows[FLOWS];

static uint64_t arrived, orders;
static uint32_t hop;
static int log_fd;
static unsigned char log_buffer[1 << 16];
static size_t log_used;

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* --- chance ------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state) /* splitmix64 */
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static double share(struct direction *way)
{
    return (double)(draw(&way->random) >> 11) / (1ULL << 53);
}

static int happens(struct direction *way, double probability)
{
    return probability > 0 && share(way) < probability;
}

/* --- the log ------------------------------------------------------------------------------ */

static void flush_log(void)
{
    for (size_t done = 0; done < log_used;) {
        ssize_t wrote = write(log_fd, log_buffer + done, log_used - done);
        if (wrote < 0) {
            perror("wire: the log");
            exit(1);
        }
        done += wrote;
    }
    log_used = 0;
}

static void settle(struct record *record, enum fate fate, int64_t out_ns)
{
    record->fate = fate;
    record->out_ns = out_ns;
    if (log_used + sizeof *record > sizeof log_buffer)
        flush_log();
    memcpy(log_buffer + log_used, record, sizeof *record);
    log_used += sizeof *record;
}

/* --- packets ------------------------------------------------------------------------------ */

static uint16_t get16(const unsigned char *at) { return at[0] << 8 | at[1]; }
static uint32_t get32(const unsigned char *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }
static void put16(unsigned char *at, uint16_t value) { at[0] = value >> 8; at[1] = value; }
static void put32(unsigned char *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

static uint32_t sum16(const unsigned char *at, size_t length, uint32_t sum)
{
    for (; length > 1; at += 2, length -= 2)
        sum += get16(at);
    return length ? sum + (at[0] << 8) : sum;
}

static uint16_t folded(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

static void set_ip_checksum(unsigned char *ip)
{
    put16(ip + 10, 0);
    put16(ip + 10, folded(sum16(ip, 20, 0)));
}

static void set_tcp_checksum(unsigned char *ip, size_t length)
{
    size_t header = (ip[0] & 15) * 4;
    put16(ip + header + 16, 0);
    uint32_t sum = sum16(ip + 12, 8, TCP + (length - header));
    put16(ip + header + 16, folded(sum16(ip + header, length - header, sum)));
}

/* What the log says of a packet.  What is no whole IPv4 packet has a size alone. */
static struct record described(const unsigned char *ip, size_t length, int direction)
{
    struct record record = {.direction = direction, .size = length};
    size_t header = (ip[0] & 15) * 4;
    if (length < 20 || ip[0] >> 4 != 4 || length < header + 8)
        return record;
    record.protocol = ip[9];
    memcpy(&record.source, ip + 12, 4);
    memcpy(&record.destination, ip + 16, 4);
    const unsigned char *above = ip + header;
    if (ip[9] == TCP && length >= header + 20) {
        record.seq = get32(above + 4);
        record.ack = get32(above + 8);
        record.flags = above[13];
        record.payload = length - header - (above[12] >> 4) * 4;
    } else if (ip[9] == UDP) {
        record.payload = length - header - 8;
    } else {
        return record;
    }
    record.source_port = get16(above);
    record.destination_port = get16(above + 2);
    return record;
}

static int is_lone_ack(const struct record *record)
{
    return record->protocol == TCP && !record->payload && !(record->flags & (SYN | FIN | RST));
}

/* --- options ----------------------------------------------------------------------------- */

/* Overwrites options of a SYN with NOPs; returns whether there were any of them. */
static int strip_options(const struct settings *set, unsigned char *ip, size_t length)
{
    unsigned char *tcp = ip + (ip[0] & 15) * 4, *end = tcp + (tcp[12] >> 4) * 4;
    int found = 0;
    if (end > ip + length)
        return 0;
    for (unsigned char *at = tcp + 20; at + 1 < end && *at != 0;) {
        size_t size = *at == 1 ? 1 : at[1];
        if (size < 1 || at + size > end)
            break;
        if ((*at == 2 && set->strip_mss > 0) || (*at == 3 && set->strip_wscale > 0) ||
            (*at == 4 && set->strip_sack > 0) || (*at == 8 && set->strip_timestamps > 0)) {
            memset(at, 1, size);
            found = 1;
        }
        at += size;
    }
    if (found)
        set_tcp_checksum(ip, length);
    return found;
}

/* --- connections -------------------------------------------------------------------------- */

static struct flow *flow_of(const struct record *record)
{
    int forward = record->direction == FORWARD;
    struct flow key = {
        .client = forward ? record->source : record->destination,
        .server = forward ? record->destination : record->source,
        .client_port = forward ? record->source_port : record->destination_port,
        .server_port = forward ? record->destination_port : record->source_port,
    };
    uint64_t hash = (uint64_t)key.client << 32 ^ key.server ^ (uint64_t)key.client_port << 16 ^
                    (uint64_t)key.server_port << 48;
    hash = draw(&hash);
    struct flow *oldest = &flows[hash % FLOWS];
    for (int i = 0; i < NEAR_SLOTS; i++) {
        struct flow *slot = &flows[(hash + i) % FLOWS];
        if (slot->last_ns && slot->client == key.client && slot->server == key.server &&
            slot->client_port == key.client_port && slot->server_port == key.server_port)
            return slot;
        if (slot->last_ns < oldest->last_ns)
            oldest = slot;
    }
    *oldest = key;
    return oldest;
}

static int is_table_full(const struct settings *set, int64_t now)
{
    int count = 0;
    for (int i = 0; i < FLOWS; i++) {
        const struct flow *flow = &flows[i];
        count += flow->last_ns && (!flow->closed_ns || now - flow->closed_ns < set->linger_s * 1e9);
    }
    return count >= set->connections;
}

/* What a box that remembers connections does to a segment; PASSED if nothing. */
static enum fate remember(const struct settings *set, const struct record *record, int64_t now)
{
    struct flow *flow = flow_of(record);
    if ((record->flags & (SYN | ACK)) == SYN) {
        if (!flow->last_ns || flow->closed_ns || flow->is_dead) {
            flow->last_ns = 0; /* it counts only once it is in */
            if (set->connections > 0 && is_table_full(set, now))
                return NEW_CONNECTION;
        }
        flow->closed_ns = flow->fins = flow->is_dead = 0;
    } else if (set->idle_s > 0 && flow->last_ns) {
        flow->is_dead |= now - flow->last_ns > set->idle_s * 1e9;
        if (flow->is_dead)
            return set->idle_reset > 0 ? RESET : IDLE;
    }
    flow->last_ns = now;
    if (record->flags & FIN)
        flow->fins |= 1 << record->direction;
    if (!flow->closed_ns && (record->flags & RST || flow->fins == 3))
        flow->closed_ns = now;
    return PASSED;
}

/* --- packets under way -------------------------------------------------------------------- */

static int is_before(const struct packet *a, const struct packet *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void hold(struct direction *way, struct record *record, const unsigned char *bytes,
                 int64_t due_ns)
{
    struct packet *packet = malloc(sizeof *packet + record->size);
    if (way->count == MOST_HELD || packet == NULL) {
        settle(record, QUEUE, 0);
        free(packet);
        return;
    }
    packet->record = *record;
    packet->due_ns = due_ns;
    packet->order = orders++;
    memcpy(packet->bytes, bytes, record->size);
    size_t at = way->count++;
    for (; at && is_before(packet, way->held[(at - 1) / 2]); at = (at - 1) / 2)
        way->held[at] = way->held[(at - 1) / 2];
    way->held[at] = packet;
}

static struct packet *release(struct direction *way)
{
    struct packet *first = way->held[0], *last = way->held[--way->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < way->count; at = child) {
        if (child + 1 < way->count && is_before(way->held[child + 1], way->held[child]))
            child++;
        if (!is_before(way->held[child], last))
            break;
        way->held[at] = way->held[child];
    }
    way->held[at] = last;
    return first;
}

/* --- what the wire says itself ------------------------------------------------------------ */

/* It comes after what is under way already: an RST that overtakes data is not believed. */
static void forge(int direction, unsigned char *ip, size_t length, int64_t in_ns)
{
    struct direction *way = &directions[direction];
    set_ip_checksum(ip);
    if (ip[9] == TCP)
        set_tcp_checksum(ip, length);
    struct record record = described(ip, length, direction);
    record.in_ns = in_ns;
    record.fate = FORGED;
    int64_t now = now_ns(CLOCK_MONOTONIC);
    hold(way, &record, ip, way->last_due_ns > now ? way->last_due_ns : now);
}

static void begin_ip(unsigned char *ip, size_t length, uint8_t protocol, uint32_t from, uint32_t to)
{
    memset(ip, 0, length);
    ip[0] = 0x45;
    put16(ip + 2, length);
    put16(ip + 6, 0x4000); /* do not fragment */
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, &from, 4);
    memcpy(ip + 16, &to, 4);
}

/* RFC 1191: the packet is too big, and may not be fragmented. */
static void say_too_big(int direction, const unsigned char *packet, const struct record *of,
                        int mtu)
{
    unsigned char ip[20 + 8 + 28], *icmp = ip + 20;
    begin_ip(ip, sizeof ip, ICMP, hop, of->source);
    icmp[0] = 3;
    icmp[1] = 4;
    put16(icmp + 6, mtu);
    memcpy(icmp + 8, packet, 28);
    put16(icmp + 2, folded(sum16(icmp, sizeof ip - 20, 0)));
    forge(!direction, ip, sizeof ip, of->in_ns);
}

/* To each end as if from the other, where it expects the next byte (RFC 5961). */
static void reset_both(int direction, const struct record *of)
{
    unsigned char ip[40], *tcp = ip + 20;
    uint32_t length = of->payload + !!(of->flags & SYN) + !!(of->flags & FIN);
    for (int there = 1; there >= 0; there--) {
        begin_ip(ip, sizeof ip, TCP, there ? of->source : of->destination,
                 there ? of->destination : of->source);
        put16(tcp, there ? of->source_port : of->destination_port);
        put16(tcp + 2, there ? of->destination_port : of->source_port);
        put32(tcp + 4, there ? of->seq : of->ack);
        put32(tcp + 8, there ? of->ack : of->seq + length);
        tcp[12] = 5 << 4;
        tcp[13] = RST | ACK;
        forge(there ? direction : !direction, ip, sizeof ip, of->in_ns);
    }
}

/* --- what may happen to a packet -------------------------------------------------------------- */

/* Why a packet goes no further; PASSED if it does. */
static enum fate obstacle(struct direction *way, const unsigned char *ip, struct record *record,
                          int64_t now)
{
    const struct settings *set = &way->set;
    int is_tcp = record->protocol == TCP;
    if (set->blackout > 0)
        return BLACKOUT;
    if (is_tcp && (record->flags & (SYN | ACK)) == SYN && happens(way, set->syn_loss))
        return DROPPED_SYN;
    if (is_tcp && (record->flags & (SYN | ACK)) == (SYN | ACK) && happens(way, set->syn_ack_loss))
        return DROPPED_SYN_ACK;
    uint16_t port = record->direction == FORWARD ? record->source_port : record->destination_port;
    if (is_tcp && (port & (int)set->port_mask) == (int)set->port_value &&
        happens(way, set->port_loss))
        return PORT;
    if (is_tcp) {
        enum fate fate = remember(set, record, now);
        if (fate != PASSED)
            return fate;
        if (record->payload && happens(way, set->reset))
            return RESET;
    }
    if (set->mtu > 0 && record->size > set->mtu) {
        if (set->icmp > 0 && record->protocol && ip[6] & 0x40)
            say_too_big(record->direction, ip, record, set->mtu);
        return TOO_BIG;
    }
    if (way->is_bursting ? happens(way, set->burst_leave) : happens(way, set->burst_enter))
        way->is_bursting = !way->is_bursting;
    if (set->burst_enter <= 0)
        way->is_bursting = 0;
    if (way->is_bursting)
        return BURST;
    if (happens(way, set->loss))
        return LOST;
    if (is_lone_ack(record) && happens(way, set->ack_loss))
        return DROPPED_ACK;
    if (set->police > 0) {
        way->tokens += (now - way->tokens_ns) * set->police / 8e9;
        way->tokens_ns = now;
        if (way->tokens > set->police_bytes)
            way->tokens = set->police_bytes;
        if (way->tokens < record->size)
            return POLICED;
        way->tokens -= record->size;
    }
    if (set->rate > 0) {
        if (way->free_ns < now)
            way->free_ns = now;
        double wait_ns = way->free_ns - now; /* so much is before this one */
        if ((set->queue_s > 0 && wait_ns > set->queue_s * 1e9) ||
            (set->queue_bytes > 0 && wait_ns * set->rate / 8e9 > set->queue_bytes))
            return QUEUE;
        way->free_ns += record->size * 8e9 / set->rate;
    }
    return PASSED;
}

static void flip_bit(struct direction *way, unsigned char *bytes, size_t length)
{
    uint64_t drawn = draw(&way->random);
    bytes[(drawn >> 3) % length] ^= 1 << (drawn & 7);
}

/* A packet suffers one of these at most. */
static enum fate deed(struct direction *way, unsigned char *ip, const struct record *record)
{
    const struct settings *set = &way->set;
    size_t length = record->size;
    if (record->protocol == TCP && record->flags & SYN && strip_options(set, ip, length))
        return STRIPPED;
    if (record->payload && record->protocol == TCP && happens(way, set->corrupt)) {
        flip_bit(way, ip + length - record->payload, record->payload);
        set_tcp_checksum(ip, length);
        return CORRUPTED;
    }
    if (record->protocol == TCP && happens(way, set->damage)) {
        if (record->payload)
            flip_bit(way, ip + length - record->payload, record->payload);
        else
            flip_bit(way, ip + (ip[0] & 15) * 4 + 16, 2);
        return DAMAGED;
    }
    if (happens(way, set->duplicate))
        return DUPLICATED;
    if (happens(way, set->reorder))
        return REORDERED;
    return PASSED;
}

static void carry(int direction, unsigned char *ip, size_t length)
{
    struct direction *way = &directions[direction];
    const struct settings *set = &way->set;
    int64_t now = now_ns(CLOCK_MONOTONIC);
    struct record record = described(ip, length, direction);
    record.number = ++arrived;
    record.in_ns = now_ns(CLOCK_REALTIME);
    enum fate fate = obstacle(way, ip, &record, now);
    if (fate != PASSED) {
        settle(&record, fate, 0);
        if (fate == RESET)
            reset_both(direction, &record);
        return;
    }
    fate = deed(way, ip, &record);
    int64_t due = set->rate > 0 ? way->free_ns : now;
    due += (set->delay_s + (set->jitter_s > 0 ? share(way) * set->jitter_s : 0)) * 1e9;
    if (due < way->last_due_ns)
        due = way->last_due_ns;
    if (fate == REORDERED)
        due += set->reorder_s * 1e9;
    else
        way->last_due_ns = due;
    for (int copies = fate == DUPLICATED ? 2 : 1; copies; copies--) {
        record.fate = copies == 2 ? PASSED : fate; /* the second is the duplicate */
        hold(way, &record, ip, due);
    }
}

static void deliver(struct direction *way, int64_t now)
{
    while (way->count && way->held[0]->due_ns <= now) {
        struct packet *packet = release(way);
        if (write(way->out, packet->bytes, packet->record.size) == packet->record.size)
            settle(&packet->record, packet->record.fate, now_ns(CLOCK_REALTIME));
        else
            settle(&packet->record, UNDELIVERED, 0);
        free(packet);
    }
}

static void take(int direction)
{
    unsigned char bytes[1 << 16];
    for (int i = 0; i < 64; i++) {
        ssize_t length = read(directions[direction].in, bytes, sizeof bytes);
        if (length <= 0)
            return;
        carry(direction, bytes, length);
    }
}

/* --- control ------------------------------------------------------------------------------ */

static const char *change(char *words)
{
    char *rest, *direction = strtok_r(words, " ", &rest);
    if (direction == NULL)
        return "nothing was asked";
    if (!strcmp(direction, "sync")) {
        flush_log();
        return "ok";
    }
    int both = !strcmp(direction, "both");
    if (!both && strcmp(direction, "forward") && strcmp(direction, "reverse"))
        return "no such direction";
    for (char *word; (word = strtok_r(NULL, " ", &rest));) {
        char *value = strchr(word, '='), *end;
        size_t i = 0, count = sizeof names / sizeof *names;
        if (value == NULL)
            return "a setting has no value";
        *value++ = 0;
        while (i < count && strcmp(word, names[i].name))
            i++;
        if (i == count)
            return "no such setting";
        double number = strtod(value, &end);
        if (*end || end == value || !(number >= 0))
            return "no such value";
        for (int way = FORWARD; way <= REVERSE; way++)
            if (both || way == !strcmp(direction, "reverse")) {
                if (names[i].offset == offsetof(struct settings, police)) {
                    directions[way].tokens = 1e18; /* a full bucket; its depth is applied later */
                    directions[way].tokens_ns = now_ns(CLOCK_MONOTONIC);
                }
                memcpy((char *)&directions[way].set + names[i].offset, &number, sizeof number);
            }
    }
    return "ok";
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "wire: lab/wire.py starts it\n");
        return 2;
    }
    int control = atoi(argv[1]), near = atoi(argv[2]), far = atoi(argv[3]);
    log_fd = atoi(argv[4]);
    hop = inet_addr(argv[5]);
    uint64_t seed = strtoull(argv[6], NULL, 10);
    for (int way = FORWARD; way <= REVERSE; way++) {
        directions[way].in = way == FORWARD ? near : far;
        directions[way].out = way == FORWARD ? far : near;
        directions[way].random = draw(&seed);
    }
    /* A timer of 1 ms that comes 50 us late is a wire that is 5 % too long. */
    prctl(PR_SET_TIMERSLACK, 1UL);
    sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1}); /* or without */

    struct pollfd ready[] = {{near, POLLIN, 0}, {far, POLLIN, 0}, {control, POLLIN, 0}};
    for (;;) {
        int64_t next = INT64_MAX, now = now_ns(CLOCK_MONOTONIC);
        for (int way = FORWARD; way <= REVERSE; way++)
            if (directions[way].count && directions[way].held[0]->due_ns < next)
                next = directions[way].held[0]->due_ns;
        int64_t left = next > now ? next - now : 0;
        struct timespec wait = {left / 1000000000, left % 1000000000};
        if (ppoll(ready, 3, next == INT64_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR)
            return 1;
        if (ready[FORWARD].revents)
            take(FORWARD);
        if (ready[REVERSE].revents)
            take(REVERSE);
        now = now_ns(CLOCK_MONOTONIC);
        deliver(&directions[FORWARD], now);
        deliver(&directions[REVERSE], now);
        if (ready[2].revents) {
            char words[4096];
            ssize_t length = recv(control, words, sizeof words - 1, 0);
            if (length <= 0)
                break;
            words[length] = 0;
            const char *answer = change(words);
            if (send(control, answer, strlen(answer), MSG_NOSIGNAL) < 0)
                break;
        }
    }
    for (int way = FORWARD; way <= REVERSE; way++)
        while (directions[way].count)
            settle(&release(&directions[way])->record, UNDELIVERED, 0);
    flush_log();
    return 0;
}
