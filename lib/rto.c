#include "lib/rto.h"
#include "lib/num.h"

void tnl_rto_init(struct tnl_rto *r)
{
	r->srtt = TNL_RTO_FIRST_RTT;
	r->rttvar = 0;
	r->rto = TNL_RTO_FIRST;
	r->shown = 0;
	r->backoff = 0;
}

void tnl_rto_sample(struct tnl_rto *r, uint64_t rtt)
{
	/* A sample of minutes (a suspended machine) would stay in the average for long. */
	rtt = TNL_MIN(rtt, 10 * (uint64_t)TNL_RTO_MAX);
	uint64_t diff = rtt > r->srtt ? rtt - r->srtt : r->srtt - rtt;
	r->rttvar = (3 * r->rttvar + diff) / 4;
	r->srtt = (7 * r->srtt + rtt) / 8;
	r->shown = r->shown ? (7 * r->shown + rtt) / 8 : rtt;
	uint64_t var = 4 * r->rttvar;
	r->rto = TNL_MIN(r->srtt + TNL_MAX(var, TNL_RTO_MIN_VAR), TNL_RTO_MAX);
	r->backoff = 0;
}

void tnl_rto_expired(struct tnl_rto *r)
{
	if (r->backoff < 10)
		r->backoff++;
}

uint64_t tnl_rto_value(const struct tnl_rto *r)
{
	uint64_t v = r->rto << r->backoff;
	return TNL_MIN(v, TNL_RTO_MAX);
}
