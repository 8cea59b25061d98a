/* What `tunneld status` shows: the status documents of daemons as tables for people. */
#ifndef TD_COMMAND_STATUS_H
#define TD_COMMAND_STATUS_H
#include "lib/json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Of the run before, so that rates can be shown.  Zeroed at first. */
struct td_status_rates {
	struct td_status_rate {
		char key[160]; /* process id and tunnel */
		int64_t in, out;
		uint64_t at_ms;
		double in_rate, out_rate; /* bytes a second; < 0: not known yet */
		double most;		  /* of all that was seen, for the bars */
	} * v;
	size_t n;
};
void td_status_rates_fini(struct td_status_rates *r);
/* Takes the byte counts of one document, monotonic now. */
void td_status_rates_take(struct td_status_rates *r, const struct tnl_json *doc, uint64_t now_ms);

struct td_status_view {
	bool colour, bars;
	const struct td_status_rates *rates;
};
/* Is all of it well?  Each thing that is not is a line on f (NULL: only the verdict). */
bool td_status_check(const struct tnl_json *doc, const struct td_status_view *v, FILE *f);
/* Tables of one process. */
void td_status_tables(const struct tnl_json *doc, const struct td_status_view *v, FILE *f);
/* All members as an indented list. */
void td_status_tree(const struct tnl_json *object, int depth, FILE *f);
/* The tunnel of that name in the document, or NULL. */
bool td_status_is_called(const struct tnl_json *tunnel,
			 const char *name); /* by its name, its range's, or as group:NAME */
const struct tnl_json *td_status_tunnel(const struct tnl_json *doc, const char *name);
/* up, or idle: it opens when somebody comes; and its last probe, if it has them, got through. */
bool td_status_tunnel_is_well(const struct tnl_json *tunnel);

#endif
