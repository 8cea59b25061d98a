/* traffic: both ends of a measurement, so that what is measured is the way between them.
 *
 *   traffic serve HOST:PORT           prints its port (PORT 0: any) and serves until it is ended
 *   traffic MODE HOST:PORT [KEY=VALUE…]   prints one line of JSON
 *     up, down, both   bulk; streams=1 seconds=0 bytes=0 (of all streams; at least one of the two), warm=0: the time
 *                      begins before connect, 1: when every connection has been answered once; hold=1, with warm: says
 * so with a line of JSON of its own and waits for one of input before it goes on; ping=0, 1: 64 bytes there and back
 * beside it, count=20 of them alone before, gap=10 (ms) between them, settle=1: what seconds are the start ping 64
 * bytes there and back; count=1000 gap=0 connect          connections a second, each answered by a byte; parallel=1
 * seconds=1 hold             count=1000 quiet connections, until its input ends wait             connects until it is
 * answered; "at" is the moment (CLOCK_MONOTONIC) limit=60: when it gives up, seconds.  Wrong bytes: "wrong" is not 0,
 * exit code 3. "seconds" is from the first connect (warm=0) until the last byte was at its receiver, or the time that
 * was given; "up" and "down" are what had arrived until then. */
#include "tests/tools/traffic/traffic.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const struct {
	const char *name;
	int (*run)(const struct options *o);
} modes[] = {{"up", run_bulk},	       {"down", run_bulk}, {"both", run_bulk}, {"ping", run_ping},
	     {"connect", run_connect}, {"hold", run_hold}, {"wait", run_wait}};

static int usage(void)
{
	fprintf(stderr,
		"usage: traffic serve HOST:PORT | up|down|both|ping|connect|hold|wait HOST:PORT [KEY=VALUE...]\n");
	return 2;
}

static bool set_option(struct options *o, const char *text, double *limit)
{
	char key[16];
	double v;

	if (sscanf(text, "%15[a-z]=%lf", key, &v) != 2 || v < 0)
		return false;
	if (strcmp(key, "streams") == 0)
		o->streams = (unsigned)v;
	else if (strcmp(key, "parallel") == 0)
		o->parallel = (unsigned)v;
	else if (strcmp(key, "count") == 0)
		o->count = (unsigned)v;
	else if (strcmp(key, "seconds") == 0)
		o->seconds = v;
	else if (strcmp(key, "settle") == 0)
		o->settle = v;
	else if (strcmp(key, "gap") == 0)
		o->gap_ms = v;
	else if (strcmp(key, "bytes") == 0)
		o->bytes = (uint64_t)v;
	else if (strcmp(key, "warm") == 0)
		o->warm = v > 0;
	else if (strcmp(key, "hold") == 0)
		o->hold = v > 0;
	else if (strcmp(key, "ping") == 0)
		o->ping = v > 0;
	else if (strcmp(key, "limit") == 0)
		*limit = v;
	else
		return false;
	return true;
}

/* What a mode takes when nothing is said. */
static void set_defaults(struct options *o)
{
	bool bulk = strcmp(o->mode, "up") == 0 || strcmp(o->mode, "down") == 0 || strcmp(o->mode, "both") == 0;

	o->streams = o->parallel = 1;
	o->count = bulk ? 20 : 1000;
	o->seconds = bulk ? 0 : 1;
	o->settle = 1;
	o->gap_ms = bulk ? 10 : 0;
}

int main(int argc, char **argv)
{
	static char host[64];
	struct options o = {.host = host};
	struct rlimit files;
	double limit = 60;

	if (argc < 3 || sscanf(argv[2], "%63[0-9.]:%u", host, &o.port) != 2 || o.port > 65535)
		return usage();
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (strcmp(argv[1], "serve") == 0)
		return serve(host, o.port);
	o.mode = argv[1];
	set_defaults(&o);
	for (int i = 3; i < argc; i++)
		if (!set_option(&o, argv[i], &limit))
			return usage();
	if (!o.streams || !o.parallel)
		return usage();
	o.limit = now_ns() + (uint64_t)(limit * 1e9);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(modes[i].name, o.mode) != 0)
			continue;
		if (modes[i].run == run_bulk && o.seconds <= 0 && o.bytes < o.streams)
			return usage();
		if (o.ping && o.seconds <= 0)
			return usage();
		return modes[i].run(&o);
	}
	return usage();
}
