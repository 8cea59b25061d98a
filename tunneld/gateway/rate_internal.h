/* Inside of the gateway: how often calls may come. */
#ifndef TD_GATEWAY_RATE_INTERNAL_H
#define TD_GATEWAY_RATE_INTERNAL_H
#include "tunneld/gateway/internal.h"

/* Is there so much in it, of what it takes a minute to fill? What costs more than all of it needs it full. */
bool gw_rate_take(struct gw_rate *r, uint64_t now, uint64_t a_minute, uint64_t cost);
/* One more call about the session from that end, `further`: for a further link.  false: counted. */
bool gw_rate_session(struct gw_end *e, bool further);
bool gw_rate_afar(struct td_gateway *g, enum gw_role role, const char *id, bool further); /* of another node */
bool gw_rate_principal(struct td_gateway *g, const struct gw_principal *p);		  /* about no session */
bool gw_rate_listing(struct gw_call *c, uint64_t looks);				  /* false: answered */
/* One look, at what may be no session of the caller's.  Of one that the store has to be asked for it is known only
 * then: may it be asked, and counted when it was in vain. */
bool gw_rate_look(struct td_gateway *g, const struct gw_principal *p);
bool gw_rate_may_look(struct td_gateway *g, const struct gw_principal *p);
void gw_rate_looked(struct td_gateway *g, const struct gw_principal *p);
void gw_call_throttle(struct gw_call *c); /* answers */
bool gw_rates_init(struct td_gateway *g);
void gw_rates_fini(struct td_gateway *g);

#endif
