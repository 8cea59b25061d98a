#include "tunneld/net/tcp_hop.h"

#include "lib/num.h"

#include <linux/inet_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define AGE 2000000u
#define REPAIR_AGE 500000000u
#define LONG 2000u		/* us there and back: what schedulers do is greater on a shorter path */
#define BULK_AGE 1000000000u	/* after so long without bulk, what comes is a new run of it */
#define BULK (64u * 1024)	/* unsent bytes */
#define FEW 8u			/* segments on the way */
#define BBR_SEARCHES (2u * 256) /* less gain: no longer */

/* bytes/s.  A rate that was measured while there was too little to send says less than the window does. */
static double send_rate(const struct tcp_info *i)
{
	double window =
	    i->tcpi_rtt ? 1e6 * (double)i->tcpi_snd_cwnd * (double)i->tcpi_snd_mss / (double)i->tcpi_rtt : 0;
	double rate = (double)i->tcpi_delivery_rate;
	return rate > 0 && (!i->tcpi_delivery_rate_app_limited || rate > window) ? rate : window;
}

/* us that packets stand on the path.  With few of them a round trip is also long because the peer puts its acks off. */
static uint32_t path_queue(const struct tcp_info *i)
{
	return i->tcpi_unacked > FEW && i->tcpi_rtt > i->tcpi_min_rtt ? i->tcpi_rtt - i->tcpi_min_rtt : 0;
}

bool td_tcp_hop_stands(const struct tcp_info *i)
{
	return path_queue(i) > i->tcpi_min_rtt / 4 + 1000;
}

static uint64_t queue_time(const struct tcp_info *i, size_t unsent)
{
	double rate = send_rate(i);
	return path_queue(i) * (uint64_t)1000 + (rate > 0 ? (uint64_t)((double)unsent * 1e9 / rate) : 0);
}

/* Lost within the last half second, and not because too much stood on the path. */
static bool note_repairs(struct td_tcp_hop *h, const struct tcp_info *i, uint64_t now)
{
	if (i->tcpi_total_retrans != h->retrans) {
		h->retrans = i->tcpi_total_retrans;
		h->repaired_at = now;
	}
	if (td_tcp_hop_stands(i))
		h->full_at = now;
	return h->repaired_at && now - h->repaired_at < REPAIR_AGE && (!h->full_at || now - h->full_at > REPAIR_AGE);
}

static bool is_bbr(int fd)
{
	char name[16] = {0}; /* TCP_CA_NAME_MAX */
	socklen_t n = sizeof(name) - 1;
	return getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n) == 0 && strcmp(name, "bbr") == 0;
}

static bool has_settled(int fd)
{
	union tcp_cc_info i = {0};
	socklen_t n = sizeof(i);
	return is_bbr(fd) && getsockopt(fd, IPPROTO_TCP, TCP_CC_INFO, &i, &n) == 0 && n >= sizeof(i.bbr) &&
	       i.bbr.bbr_pacing_gain < BBR_SEARCHES;
}

/* On another socket, so that ours is not left with the wrong one. */
static bool may_choose_bbr(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3) == 0;
	if (fd >= 0)
		close(fd);
	return ok;
}

/* A BBR that is chosen starts from nothing. */
static void search_anew(int fd)
{
	if (may_choose_bbr() && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0)
		(void)!setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3);
}

/* BBR ends its search when three round trips in which it could have sent more bring no more.  On a lossy path a few
 * small messages do that, and what comes then is sent at their rate for seconds: once in a run of bulk, let it search
 * again. */
static void help_bbr(struct td_tcp_hop *h, const struct tcp_info *i, size_t unsent, int fd, uint64_t now)
{
	if (unsent < BULK)
		return;
	if (now - h->bulk_at > BULK_AGE)
		h->helped = false;
	h->bulk_at = now;
	if (h->helped || !h->hop.repairs || h->hop.queue / 1000 < 2 * (uint64_t)i->tcpi_min_rtt)
		return;
	h->helped = true;
	if (has_settled(fd))
		search_anew(fd);
}

const struct tnl_hop *td_tcp_hop_ask(struct td_tcp_hop *h, int fd, size_t ahead, uint64_t now)
{
	struct tcp_info i = {0};
	socklen_t n = sizeof(i);
	if (now - h->at < AGE)
		return &h->hop;
	h->at = now;
	h->hop = (struct tnl_hop){0};
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n) != 0 || n < offsetof(struct tcp_info, tcpi_busy_time))
		return &h->hop;
	size_t unsent = ahead + i.tcpi_notsent_bytes;
	h->hop.queue = queue_time(&i, unsent);
	h->hop.repairs = note_repairs(h, &i, now);
	h->hop.full = i.tcpi_min_rtt >= LONG && h->full_at && now - h->full_at < REPAIR_AGE;
	help_bbr(h, &i, unsent, fd, now);
	return &h->hop;
}

void td_tcp_hop_local(int fd, const struct td_addr *a)
{
	if (td_addr_is_loopback(a))
		(void)!setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}
