/* What the command line of the plugin asked StartSession for.  The far end repeats it in the handshake, as the document
 * made it; what the two say differently is not the far end's to decide. */
#ifndef TD_COMMAND_WISH_H
#define TD_COMMAND_WISH_H
#include "lib/json.h"
#include "lib/session.h"

struct td_wish {
	struct tnl_json *all; /* of the command line; NULL: it has none, or no JSON */
	const char *target, *document;
	const char *port, *socket; /* where to listen; NULL: not said */
};
void td_wish_init(struct td_wish *w, const char *parameters); /* parameters may be NULL */
void td_wish_fini(struct td_wish *w);
/* Is that a session of the document?  Of documents that are not AWS's own nobody knows. */
bool td_wish_allows(const struct td_wish *w, enum tnl_session_mode mode);
/* Where to listen: "127.0.0.1:PORT" or "unix:PATH", the command line's if it says so; what the far end's properties say
 * is taken from a document that is not AWS's own, and is a TCP port that needs no privilege.  -1: *why. */
int td_wish_listen(const struct td_wish *w, const struct tnl_json *properties, char *out, size_t cap, char *why,
		   size_t why_cap);

#endif
