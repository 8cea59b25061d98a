/* Retransmission timeout (docs/reliability.md "Timer"): the shape of RFC 6298
 * with the constants of the Session Manager ends.  Times in ns. */
#ifndef TNL_RTO_H
#define TNL_RTO_H
#include <stdint.h>

#define TNL_RTO_FIRST_RTT 100000000u /* assumed round trip before the first sample */
#define TNL_RTO_FIRST 200000000u     /* timeout before the first sample */
#define TNL_RTO_MIN_VAR 10000000u    /* least distance of timeout and round trip */
#define TNL_RTO_MAX 1000000000u

struct tnl_rto {
	uint64_t srtt, rttvar, rto;
	uint64_t shown;	  /* the round trip as it was measured, smoothed from the first sample on; 0: there was none */
	unsigned backoff; /* timeouts in a row: the value doubles for each, up to the cap */
};

void tnl_rto_init(struct tnl_rto *r);
void tnl_rto_sample(struct tnl_rto *r, uint64_t rtt); /* of a message that was sent once (Karn); ends the backoff */
void tnl_rto_expired(struct tnl_rto *r);	      /* the timer ran out */
uint64_t tnl_rto_value(const struct tnl_rto *r);      /* with backoff, at most TNL_RTO_MAX */

#endif
