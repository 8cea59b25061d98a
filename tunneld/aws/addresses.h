/* The addresses of one service, tried in turn with a memory of what worked. */
#ifndef TD_AWS_ADDRESSES_H
#define TD_AWS_ADDRESSES_H
#include "lib/err.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/config.h"

struct td_addresses;
/* list: URLs with commas between them, at least one.  0, TNL_ENOMEM, or TNL_ETOOBIG: more than TD_ENDPOINTS_MAX. */
int td_addresses_new(struct td_addresses **out, struct td_loop *l, const char *list) TNL_MUST_USE;
void td_addresses_free(struct td_addresses *a);

/* Which to ask: one that is not in the set `tried` (a bit for each).  TD_ENDPOINTS_MAX: none is left. */
unsigned td_addresses_next(const struct td_addresses *a, unsigned tried);
/* It could not be reached, or had no answer of the service's own. */
void td_addresses_failed(struct td_addresses *a, unsigned i, const char *why);
/* It has answered: it is the one in use now, if the one before has failed; logged then. */
void td_addresses_worked(struct td_addresses *a, unsigned i);
/* The one that `old` has moved to is in use here too, if it is in this list. */
void td_addresses_follow(struct td_addresses *a, const struct td_addresses *old);

const char *td_addresses_list(const struct td_addresses *a); /* as it was given */
unsigned td_addresses_count(const struct td_addresses *a);
const char *td_addresses_url(const struct td_addresses *a, unsigned i); /* without trailing slash */
unsigned td_addresses_in_use(const struct td_addresses *a);
const char *td_addresses_trouble(const struct td_addresses *a, unsigned i); /* why it failed last; "": it has not */
uint64_t td_addresses_moves(const struct td_addresses *a);		    /* how often the one in use has changed */
/* By host and port; TD_ENDPOINTS_MAX: it is not among them. */
unsigned td_addresses_find(const struct td_addresses *a, const char *url);
bool td_addresses_meet(const struct td_addresses *a, const struct td_addresses *b); /* have they one in common? */

#endif
