/* sim --seeds A-B | --seed N [-v] | --soak 7d [--seed N] | --split A-B [-v] */
#include "tests/sim/sim.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int usage(void)
{
	fprintf(
	    stderr,
	    "usage: sim --seeds A-B        run these seeds; prints those that fail\n"
	    "       sim --seed N [-v]      replay one\n"
	    "       sim --split A-B [-v]   three gateways and their store, by these seeds\n"
	    "       sim --soak 7d [--seed N]  virtual days (d), hours (h) or minutes (m) with a resume every hour\n");
	return 2;
}

static uint64_t duration(const char *s)
{
	char *end;
	uint64_t n = strtoull(s, &end, 10);
	switch (*end) {
	case 'd':
		return n * 24 * 3600 * SEC;
	case 'h':
		return n * 3600 * SEC;
	case 'm':
		return n * 60 * SEC;
	default:
		return 0;
	}
}

static int run_seeds(uint64_t a, uint64_t b)
{
	uint64_t failed = 0, messages = 0, lost = 0, resumes = 0, striped = 0, stalls = 0;
	for (uint64_t i = a; i <= b; i++) {
		struct world st;
		if (!world_run(i, 0, &st)) {
			failed++;
			printf("replay: sim --seed %llu -v\n", (unsigned long long)i);
			fflush(stdout);
		}
		messages += st.messages;
		lost += st.lost;
		resumes += st.resumes;
		striped += st.striped;
		stalls += st.stalls;
	}
	printf(
	    "simulator, seeds %llu-%llu: %llu messages (%llu on further links), %llu lost, %llu link starts, %llu stalls; %llu passed, %llu failed\n",
	    (unsigned long long)a, (unsigned long long)b, (unsigned long long)messages, (unsigned long long)striped,
	    (unsigned long long)lost, (unsigned long long)resumes, (unsigned long long)stalls,
	    (unsigned long long)(b - a + 1 - failed), (unsigned long long)failed);
	return failed ? 1 : 0;
}

static int run_splits(uint64_t a, uint64_t b, int verbose)
{
	uint64_t failed = 0;
	struct split_stats all = {0};
	for (uint64_t i = a; i <= b; i++) {
		struct split_stats st;
		if (!split_run(i, verbose, &st)) {
			failed++;
			printf("replay: sim --split %llu -v\n", (unsigned long long)i);
		}
		all.takes += st.takes;
		all.moves += st.moves;
		all.forgets += st.forgets;
		all.bytes += st.bytes;
	}
	printf(
	    "nodes and store, seeds %llu-%llu: %llu takes, %llu moves, %llu failovers, %llu delivered; %llu passed, %llu failed\n",
	    (unsigned long long)a, (unsigned long long)b, (unsigned long long)all.takes, (unsigned long long)all.moves,
	    (unsigned long long)all.forgets, (unsigned long long)all.bytes, (unsigned long long)(b - a + 1 - failed),
	    (unsigned long long)failed);
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	uint64_t a = 0, b = 0, seed = 1, soak = 0;
	bool range = false, one = false, split = false;
	int verbose = 0;
	for (int i = 1; i < argc; i++) {
		const char *v = i + 1 < argc ? argv[i + 1] : "";
		char *end;
		if (strcmp(argv[i], "--seeds") == 0 || strcmp(argv[i], "--split") == 0) {
			split = argv[i][3] == 'p';
			a = strtoull(v, &end, 10);
			b = *end == '-' ? strtoull(end + 1, NULL, 10) : a;
			range = true;
			i++;
		} else if (strcmp(argv[i], "--seed") == 0) {
			seed = strtoull(v, NULL, 10);
			one = true;
			i++;
		} else if (strcmp(argv[i], "--soak") == 0) {
			soak = duration(v);
			i++;
			if (!soak)
				return usage();
		} else if (strcmp(argv[i], "-v") == 0) {
			verbose = 1;
		} else {
			return usage();
		}
	}
	if (soak)
		return soak_run(seed, soak, verbose) ? 0 : 1;
	if (split)
		return run_splits(a, b, verbose);
	if (range)
		return run_seeds(a, b);
	if (one)
		return world_run(seed, verbose, NULL) ? 0 : 1;
	return usage();
}
