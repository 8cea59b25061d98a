/* A link between two network namespaces of its own: TUN devices joined by a queue
 * with delay, rate and seeded loss.  (Kernels without netem have nothing else.)
 *
 *   linkemu SEED            prints "ready PID FD_CLIENT FD_SERVER" when both ends are up
 *
 * Others enter an end by nsenter --net=/proc/PID/fd/FD; the namespaces vanish with
 * the last process in them.  The client's end is 10.77.0.1, the server's 10.77.0.2.
 * Commands on stdin, each answered with one line:
 *   delay MS | rate BYTES_PER_SECOND | queue BYTES | loss PER_10000    both directions
 *   addr A.B.C.D     the client's address from now on (old connections are left to die)
 *   up | down        whether packets pass at all
 *   stats            "ok PACKETS LOST OVERFLOWED" */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MTU = 1500, SLOTS = 65536 };

struct packet {
	uint64_t due;
	uint16_t len;
	uint8_t data[MTU];
};

struct direction {
	int from, to;
	struct packet *ring;
	uint32_t head, tail; /* free running */
	uint64_t free_at;
};

static uint64_t delay_ns, rate, queue_max = 4u << 20, seed;
static unsigned loss;
static bool down;
static uint64_t passed, lost, overflowed;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 32);
}

static void fail(const char *what)
{
	printf("fail %s: %s\n", what, strerror(errno));
	exit(1);
}

static void set_address(const char *dev, const char *addr)
{
	struct ifreq r;
	struct sockaddr_in sin = {.sin_family = AF_INET};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memset(&r, 0, sizeof(r));
	strcpy(r.ifr_name, dev);
	inet_pton(AF_INET, addr, &sin.sin_addr);
	memcpy(&r.ifr_addr, &sin, sizeof(sin));
	if (s < 0 || ioctl(s, SIOCSIFADDR, &r))
		fail("SIOCSIFADDR");
	inet_pton(AF_INET, "255.255.255.0", &sin.sin_addr);
	memcpy(&r.ifr_netmask, &sin, sizeof(sin));
	if (ioctl(s, SIOCSIFNETMASK, &r))
		fail("SIOCSIFNETMASK");
	close(s);
}

static void set_up(const char *dev)
{
	struct ifreq r;
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memset(&r, 0, sizeof(r));
	strcpy(r.ifr_name, dev);
	if (s < 0 || ioctl(s, SIOCGIFFLAGS, &r))
		fail("SIOCGIFFLAGS");
	r.ifr_flags = (short)(r.ifr_flags | IFF_UP);
	if (ioctl(s, SIOCSIFFLAGS, &r))
		fail("SIOCSIFFLAGS");
	close(s);
}

/* A new namespace, entered; its descriptor and a TUN device in it. */
static int new_end(const char *addr, int *ns)
{
	struct ifreq r;
	int fd;

	if (unshare(CLONE_NEWNET))
		fail("unshare");
	*ns = open("/proc/self/ns/net", O_RDONLY);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	if (*ns < 0 || fd < 0)
		fail("/dev/net/tun");
	memset(&r, 0, sizeof(r));
	strcpy(r.ifr_name, "link0");
	r.ifr_flags = IFF_TUN | IFF_NO_PI;
	if (ioctl(fd, TUNSETIFF, &r))
		fail("TUNSETIFF");
	set_address("link0", addr);
	set_up("link0");
	set_up("lo");
	return fd;
}

/* Bytes before the bottleneck: what is on its way behind it (the delay) is no queue. */
static size_t queued(const struct direction *d, uint64_t now)
{
	return rate ? (size_t)((double)(d->free_at - now) * (double)rate / 1e9) : 0;
}

static void take(struct direction *d, uint64_t now)
{
	for (int i = 0; i < 64; i++) {
		uint8_t buf[MTU + 100];
		ssize_t n = read(d->from, buf, sizeof(buf));
		if (n <= 0 || n > MTU)
			return;
		passed++;
		if (down || (loss && draw() % 10000 < loss)) {
			lost++;
			continue;
		}
		if (d->free_at < now)
			d->free_at = now;
		if (queued(d, now) + (size_t)n > queue_max || d->tail - d->head == SLOTS) {
			overflowed++;
			continue;
		}
		if (rate)
			d->free_at += (uint64_t)n * 1000000000u / rate;
		struct packet *p = &d->ring[d->tail++ % SLOTS];
		p->due = d->free_at + delay_ns;
		p->len = (uint16_t)n;
		memcpy(p->data, buf, (size_t)n);
	}
}

/* -> when it wants to be called again */
static uint64_t give(struct direction *d, uint64_t now)
{
	while (d->head != d->tail) {
		struct packet *p = &d->ring[d->head % SLOTS];
		if (p->due > now)
			return p->due;
		if (write(d->to, p->data, p->len) < 0 && errno == EAGAIN)
			return now + 1000000;
		d->head++;
	}
	return UINT64_MAX;
}

static void command(char *line, int client_ns, int server_ns)
{
	char verb[16] = "", arg[64] = "";
	sscanf(line, "%15s %63s", verb, arg);
	uint64_t v = strtoull(arg, NULL, 10);
	if (strcmp(verb, "delay") == 0)
		delay_ns = (uint64_t)(strtod(arg, NULL) * 1e6);
	else if (strcmp(verb, "rate") == 0)
		rate = v;
	else if (strcmp(verb, "queue") == 0)
		queue_max = v;
	else if (strcmp(verb, "loss") == 0)
		loss = (unsigned)v;
	else if (strcmp(verb, "up") == 0 || strcmp(verb, "down") == 0)
		down = verb[0] == 'd';
	else if (strcmp(verb, "addr") == 0) {
		if (setns(client_ns, CLONE_NEWNET))
			fail("setns");
		set_address("link0", arg);
		if (setns(server_ns, CLONE_NEWNET))
			fail("setns");
	}
	printf("ok %llu %llu %llu\n", (unsigned long long)passed, (unsigned long long)lost,
	       (unsigned long long)overflowed);
}

int main(int argc, char **argv)
{
	int cns, sns;
	char line[128];
	struct direction d[2] = {{0}};

	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = argc > 1 ? strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1 : 1;
	int a = new_end("10.77.0.1", &cns);
	int b = new_end("10.77.0.2", &sns);
	d[0].from = d[1].to = a;
	d[0].to = d[1].from = b;
	for (int i = 0; i < 2; i++) {
		d[i].ring = malloc(sizeof(struct packet) * SLOTS);
		if (!d[i].ring)
			return 1;
	}
	printf("ready %d %d %d\n", (int)getpid(), cns, sns);
	for (;;) {
		uint64_t now = now_ns(), next = UINT64_MAX;
		for (int i = 0; i < 2; i++) {
			uint64_t t = give(&d[i], now);
			next = t < next ? t : next;
		}
		struct pollfd p[3] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {0, POLLIN, 0}};
		struct timespec ts = {1, 0};
		if (next != UINT64_MAX) {
			uint64_t left = next > now ? next - now : 0;
			ts.tv_sec = (time_t)(left / 1000000000u);
			ts.tv_nsec = (long)(left % 1000000000u);
		}
		if (ppoll(p, 3, &ts, NULL) < 0 && errno != EINTR)
			return 1;
		now = now_ns();
		take(&d[0], now);
		take(&d[1], now);
		if (p[2].revents) {
			ssize_t n = read(0, line, sizeof(line) - 1);
			if (n <= 0)
				return 0;
			line[n] = 0;
			command(line, cns, sns);
		}
	}
}
