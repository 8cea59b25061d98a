/* A link between two network namespaces of its own, or two links in a row between three: TUN devices
 * joined by a queue with delay, rate and seeded loss.  (Kernels without netem have nothing else.)
 *
 *   linkemu SEED [LINKS]    prints "ready PID FD FD [FD]" when all ends are up: client's end first
 *
 * Others enter an end by nsenter --net=/proc/PID/fd/FD; the namespaces vanish with the last process in
 * them.  One link: client 10.77.0.1, server 10.77.0.2.  Two: the machine in the middle is 10.77.0.2 and
 * 10.77.1.1 and routes, the server is 10.77.1.2.
 * Commands on stdin, each answered with one line; they go for every link and both directions:
 *   delay MS | rate BYTES_PER_SECOND (0: none) | loss PER_10000
 *   queue BYTES      what may wait in front of the rate; 0, the default: rate × round trip, at least 32 KiB
 *   addr A.B.C.D     the client's address from now on (old connections are left to die)
 *   up | down        whether packets pass at all
 *   stats            "ok PACKETS LOST OVERFLOWED": segments of at most the MTU, as all that is counted here
 *   counters         "ok PACKETS LOST OVERFLOWED READS BYTES MISSED": READS of up to 64 KiB; what the kernel MISSED
 *                    to hand over because we were late (it should be 0, or the loss is not what was asked for)
 *
 * The kernel hands over what TCP's segmentation offload makes, up to 64 KiB at once, and takes it back like that:
 * so a link costs two system calls for 45 segments.  Loss falls on segments all the same, and a rate lets them
 * through in pieces of at most a quarter of a millisecond.  One thread for each direction of each link.
 *
 * What it carries (make bench BENCH_ARGS="--only link-limits", plain TCP, two cores that run both ends as well): 2 GB/s
 * without delay and loss, 1 GB/s with 1 % loss, 14,000 connections a second, and 15 us more than loopback for a round
 * trip; with 50 ms one TCP gets what the kernel's tcp_wmem allows (4 MB: 45 to 56 MB/s), eight of them 350 MB/s.
 * Without offload (a segment a system call) it was a tenth of that.  Figures near these are the link's, not the
 * tunnel's.  At most 65,536 pieces are on their way in a direction, more overflow.  Only IPv4's TCP is split; anything
 * else is lost, or passes, as it is. */
#include "tests/tools/linkemu/linkemu.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct link_rules rules;
static struct direction directions[2 * LINKS_MAX];
static int links = 1, spaces[LINKS_MAX + 1];

void fail(const char *what)
{
	printf("fail %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Link n joins the machines n and n + 1; its addresses are 10.77.n.1 and 10.77.n.2. */
static void build(void)
{
	char dev[16], addr[32];
	int near[LINKS_MAX], far[LINKS_MAX];

	for (int i = 0; i <= links; i++) {
		spaces[i] = new_space();
		if (i > 0) {
			snprintf(dev, sizeof(dev), "link%d", i - 1);
			snprintf(addr, sizeof(addr), "10.77.%d.2", i - 1);
			far[i - 1] = new_device(dev, addr);
		}
		if (i < links) {
			snprintf(dev, sizeof(dev), "link%d", i);
			snprintf(addr, sizeof(addr), "10.77.%d.1", i);
			near[i] = new_device(dev, addr);
		}
		for (int n = 0; n < links; n++) { /* the links that do not end here lie behind the last one that does */
			if (n == i || n == i - 1)
				continue;
			snprintf(addr, sizeof(addr), "10.77.%d.0", n);
			add_route(dev, addr);
		}
		if (i > 0 && i < links)
			set_forwarding();
	}
	for (int i = 0; i < links; i++) {
		directions[2 * i].from = directions[2 * i + 1].to = near[i];
		directions[2 * i].to = directions[2 * i + 1].from = far[i];
	}
}

/* -> what the kernel dropped in front of our devices */
static unsigned long long missed(void)
{
	unsigned long long sum = 0;

	for (int i = 0; i <= links; i++)
		sum += space_missed(spaces[i]);
	return sum;
}

static void command(const char *line)
{
	char verb[16] = "", arg[64] = "";
	unsigned long long sum[5] = {0};

	sscanf(line, "%15s %63s", verb, arg);
	unsigned long long v = strtoull(arg, NULL, 10);
	if (strcmp(verb, "delay") == 0)
		rules.delay_ns = (uint64_t)(strtod(arg, NULL) * 1e6);
	else if (strcmp(verb, "rate") == 0)
		rules.rate = v;
	else if (strcmp(verb, "queue") == 0)
		rules.queue_max = v;
	else if (strcmp(verb, "loss") == 0)
		rules.loss = v;
	else if (strcmp(verb, "up") == 0 || strcmp(verb, "down") == 0)
		rules.down = verb[0] == 'd';
	else if (strcmp(verb, "addr") == 0) {
		enter(spaces[0]);
		set_address("link0", arg);
	}
	for (int i = 0; i < 2 * links; i++) {
		struct direction *d = &directions[i];
		unsigned long long part[5] = {d->passed, d->lost, d->overflowed, d->reads, d->bytes};

		for (int k = 0; k < 5; k++)
			sum[k] += part[k];
		if (eventfd_write(d->wake, 1))
			fail("eventfd");
	}
	printf("ok %llu %llu %llu", sum[0], sum[1], sum[2]);
	if (strcmp(verb, "counters") == 0)
		printf(" %llu %llu %llu", sum[3], sum[4], missed());
	printf("\n");
}

int main(int argc, char **argv)
{
	char line[128];
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1 : 1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	links = argc > 2 ? atoi(argv[2]) : 1;
	if (links < 1 || links > LINKS_MAX) {
		fprintf(stderr, "usage: linkemu SEED [1|2]\n");
		return 2;
	}
	build();
	for (int i = 0; i < 2 * links; i++)
		direction_start(&directions[i], seed + (uint64_t)i * 0xd1342543de82ef95u);
	printf("ready %d", (int)getpid());
	for (int i = 0; i <= links; i++)
		printf(" %d", spaces[i]);
	printf("\n");
	while (fgets(line, sizeof(line), stdin))
		command(line);
	return 0;
}
